import { call, type Project } from "$/api.ts";

/** The projects that the caller can see, shared by home and the header. */
class Projects {
  /** The newest first; null until they were read. */
  all = $state<Project[] | null>(null);

  /** Read them anew. */
  async read(): Promise<void> {
    this.all = (await call<{ projects: Project[] }>("GET", "/projects?limit=200")).projects;
  }

  /** Show a project as it is now, wherever it is shown. */
  put(project: Project): void {
    const rest = (this.all ?? []).filter(({ id }) => id !== project.id);
    this.all = [project, ...rest].sort((a, b) => b.createdAt.localeCompare(a.createdAt));
  }

  /** Forget one that was deleted. */
  drop(id: string): void {
    this.all = this.all?.filter((project) => project.id !== id) ?? null;
  }

  /** One of them, from the service if it was not read yet.
   *
   * @throws what the call throws, such as for a project that is not there.
   */
  async find(id: string): Promise<Project> {
    const known = this.all?.find((project) => project.id === id);
    if (known) return known;
    const path = `/projects/${encodeURIComponent(id)}`;
    const { project } = await call<{ project: Project }>("GET", path);
    return project;
  }
}

/** The projects of this page. */
export const projects = new Projects();
