import { SvelteMap } from "svelte/reactivity";
import type { Project } from "archwright-client";
import { api } from "$/api.ts";

const MOST = 200;

/** The projects that the caller can see, shared by home, the header and the views. */
class Projects {
  readonly #known = new SvelteMap<string, Project>();
  #isRead = $state(false);

  /** All of them, the newest first; null until they were read. */
  readonly all = $derived(
    this.#isRead
      ? [...this.#known.values()].sort((a, b) => b.createdAt.localeCompare(a.createdAt))
      : null,
  );

  /** Read all of them anew.
   *
   * @throws {ArchwrightError}
   */
  async read(): Promise<void> {
    const found: Project[] = [];
    for (let isMore = true; isMore; ) {
      const next = await api.projects.list({ limit: MOST, before: found.at(-1)?.createdAt });
      found.push(...next);
      isMore = next.length === MOST;
    }
    this.#known.clear();
    for (const project of found) this.put(project);
    this.#isRead = true;
  }

  /** One that was read; undefined before that. */
  get(id: string | undefined): Project | undefined {
    return id === undefined ? undefined : this.#known.get(id);
  }

  /** Show a project as it is now, wherever it is shown. */
  put(project: Project): void {
    this.#known.set(project.id, project);
  }

  /** Forget one that was deleted. */
  drop(id: string): void {
    this.#known.delete(id);
  }

  /** Read one of them anew.
   *
   * @throws {ArchwrightError} such as for a project that is not there.
   */
  async refresh(id: string): Promise<Project> {
    const project = await api.projects.get(id);
    this.put(project);
    return project;
  }

  /** One of them, from the service if it was not read yet.
   *
   * @throws {ArchwrightError} such as for a project that is not there.
   */
  async find(id: string): Promise<Project> {
    return this.get(id) ?? (await this.refresh(id));
  }
}

/** The projects of this page. */
export const projects = new Projects();
