import { createClient, type Project } from "archwright-client";
import { session } from "./session.svelte.ts";

/** The service. Every call waits for the person to sign in where that is needed. */
export const api = createClient({ fetch: session.fetch, credentials: session.credentials });

/** What a caller may do in a project, from less to more. */
export type Tier = Project["accessTier"];

const TIERS: Tier[] = ["use", "edit", "full"];

/** Whether the caller's tier in a project is enough. */
export function allows(project: Project, needed: Tier): boolean {
  return TIERS.indexOf(project.accessTier) >= TIERS.indexOf(needed);
}

/** Why the caller may not do something in a project; undefined where they may. */
export function blockedBy(project: Project, needed: Tier): string | undefined {
  if (allows(project, needed)) return undefined;
  return `This needs tier ${needed}. Yours is ${project.accessTier}; ask an owner of the project.`;
}
