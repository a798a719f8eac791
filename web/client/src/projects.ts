import { paged, type Call, type Page } from "./calls.ts";
import type { CallOptions } from "./connection.ts";
import type {
  Grant,
  GrantAnswer,
  NewGrant,
  NewProject,
  Project,
  ProjectChange,
} from "./openapi.ts";

/** Projects: what documents, instructions and conversations belong to. */
export function projects(call: Call) {
  return {
    /** Those that the caller may see, the newest first, each with the caller's tier. */
    async list(page: Page = {}): Promise<Project[]> {
      const { signal } = page;
      return (await call("get", "/projects", { query: paged(page), signal })).projects;
    },

    async get(id: string, { signal }: CallOptions = {}): Promise<Project> {
      const path = { project_id: id };
      return (await call("get", "/projects/{project_id}", { path, signal })).project;
    },

    /** The caller becomes its owner. */
    async create(body: NewProject, { signal }: CallOptions = {}): Promise<Project> {
      return (await call("post", "/projects", { body, signal })).project;
    },

    async change(
      id: string,
      body: ProjectChange,
      { signal }: CallOptions = {},
    ): Promise<Project> {
      const path = { project_id: id };
      return (await call("patch", "/projects/{project_id}", { path, body, signal })).project;
    },

    /** With its documents and conversations, for good. */
    async delete(id: string, { signal }: CallOptions = {}): Promise<void> {
      await call("delete", "/projects/{project_id}", { path: { project_id: id }, signal });
    },
  };
}

/** Who may do what in a project. */
export function grants(call: Call) {
  return {
    async list(projectId: string, page: Page = {}): Promise<Grant[]> {
      const parts = { path: { project_id: projectId }, query: paged(page), signal: page.signal };
      return (await call("get", "/projects/{project_id}/grants", parts)).grants;
    },

    /** Give a tier to a user or group, in place of the one that they had. */
    put(projectId: string, body: NewGrant, { signal }: CallOptions = {}): Promise<GrantAnswer> {
      const path = { project_id: projectId };
      return call("post", "/projects/{project_id}/grants", { path, body, signal });
    },

    async delete(projectId: string, id: string, { signal }: CallOptions = {}): Promise<void> {
      const path = { project_id: projectId, grant_id: id };
      await call("delete", "/projects/{project_id}/grants/{grant_id}", { path, signal });
    },
  };
}
