import type { Api, Project, Text } from "archwright-client";
import { api, blockedBy } from "$/api.ts";
import { link } from "$/router.svelte.ts";
import { session } from "$/session.svelte.ts";

/** Whose texts are shown: those of the whole service, or with a project that project's. */
export interface Scope {
  project: Project | undefined;
  texts: ReturnType<Api["texts"]>;
  /** Where what is written here counts. */
  layer: Text["source"];
  /** Why the caller may only read; undefined where they may write. */
  blocked: string | undefined;
}

/** The scope of a project, or without one of the service. */
export function scopeOf(project: Project | undefined): Scope {
  return {
    project,
    texts: api.texts(project?.id),
    layer: project ? "override" : "edit",
    blocked: project ? blockedBy(project, "full") : adminsOnly(),
  };
}

/** The address of a text, or of the list of all. */
export function addressOf({ project }: Scope, path = ""): string {
  const root = project ? ["projects", project.id, "texts"] : ["texts"];
  return link(...root, ...(path ? path.split("/") : []));
}

function adminsOnly(): string | undefined {
  return session.isAdmin ? undefined : "Only admins change the texts of the whole service.";
}
