import type { Component } from "svelte";
import { match } from "$/router.svelte.ts";
import Home from "$/views/home/Home.svelte";
import type { Project } from "archwright-client";

/** What every view is given: the parameters of its route. */
export interface ViewProps {
  params: Record<string, string>;
}

/** What every view below `/projects/:project` is given as well: that project, as the caller sees it. */
export interface ProjectViewProps extends ViewProps {
  project: Project;
}

// Each view says in its own file what it needs; which of the two it is follows from its pattern.
type AnyView = Component<ProjectViewProps>;

/** A view: its pattern, its title, and how it is loaded. */
export interface Route {
  pattern: string;
  title: string;
  load: () => Promise<{ default: unknown }>;
}

// Only home is part of what `/` loads.
const ROUTES: Route[] = [
  { pattern: "/", title: "Home", load: async () => ({ default: Home }) },
  { pattern: "/projects/:project", title: "Documents", load: () => import("$/views/project/Documents.svelte") },
  { pattern: "/projects/:project/settings", title: "Settings", load: () => import("$/views/project/Settings.svelte") },
  { pattern: "/projects/:project/chat/:conversation?", title: "Chat", load: () => import("$/views/chat/Chat.svelte") },
  { pattern: "/projects/:project/drafting/*", title: "Drafting", load: () => import("$/views/drafting/Drafting.svelte") },
  { pattern: "/projects/:project/people", title: "People", load: () => import("$/views/people/People.svelte") },
  { pattern: "/projects/:project/texts/*", title: "Templates and prompts", load: () => import("$/views/texts/Texts.svelte") },
  { pattern: "/texts/*", title: "Templates and prompts", load: () => import("$/views/texts/Texts.svelte") },
  { pattern: "/providers", title: "Providers", load: () => import("$/views/providers/Providers.svelte") },
  { pattern: "/keys", title: "API keys", load: () => import("$/views/keys/Keys.svelte") },
  { pattern: "/usage", title: "Usage", load: () => import("$/views/usage/Usage.svelte") },
];

const NOWHERE: Route = {
  pattern: "*",
  title: "Not found",
  load: () => import("$/views/NotFound.svelte"),
};

/** The route of a path, with its parameters. */
export function routeOf(path: string): { route: Route; params: Record<string, string> } {
  for (const route of ROUTES) {
    const params = match(route.pattern, path);
    if (params) return { route, params };
  }
  return { route: NOWHERE, params: {} };
}

/** A view whose files are not there: the service is away, or has another version by now. */
export class ViewUnread extends Error {
  override readonly message =
    "This part of the page cannot be read. Check the connection, and load the page again: the service may have a newer one.";
}

/** Load a route's view.
 *
 * @throws {ViewUnread}
 */
export async function viewOf(route: Route): Promise<AnyView> {
  try {
    return (await route.load()).default as AnyView;
  } catch {
    throw new ViewUnread();
  }
}
