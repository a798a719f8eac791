import type { Project } from "archwright-client";
import { api } from "$/api.ts";

const MOST = 200;

/** The projects that the caller can see, shared by home, the header and the views. */
class Projects {
  #all = $state.raw<Project[] | null>(null);

  /** The newest first; null until they were read. */
  get all(): Project[] | null {
    return this.#all;
  }

  /** Read them anew.
   *
   * @throws {ArchwrightError}
   */
  async read(): Promise<void> {
    const all = await api.projects.list({ limit: MOST });
    while (all.length && all.length % MOST === 0) {
      const more = await api.projects.list({ limit: MOST, before: all.at(-1)!.createdAt });
      if (!more.length) break;
      all.push(...more);
    }
    this.#all = all;
  }

  /** Show a project as it is now, wherever it is shown. */
  put(project: Project): void {
    const rest = (this.#all ?? []).filter(({ id }) => id !== project.id);
    this.#all = [project, ...rest].sort((a, b) => b.createdAt.localeCompare(a.createdAt));
  }

  /** Forget one that was deleted. */
  drop(id: string): void {
    this.#all = this.#all?.filter((project) => project.id !== id) ?? null;
  }

  /** Read one of them anew.
   *
   * @throws {ArchwrightError} such as for a project that is not there.
   */
  async refresh(id: string): Promise<Project> {
    const project = await api.projects.get(id);
    if (this.#all) this.put(project);
    return project;
  }

  /** One of them, from the service if it was not read yet.
   *
   * @throws {ArchwrightError} such as for a project that is not there.
   */
  async find(id: string): Promise<Project> {
    return this.#all?.find((project) => project.id === id) ?? (await this.refresh(id));
  }
}

/** The projects of this page. */
export const projects = new Projects();
