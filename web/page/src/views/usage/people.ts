import { api } from "$/api.ts";
import { projects } from "$/projects.svelte.ts";
import { session } from "$/session.svelte.ts";

/** What ids are called, as far as the caller may know it. */
export interface Names {
  person: (id: string) => string;
  project: (id: string | null) => string;
}

/** Read what people and projects are called. Where that fails, ids stand for them. */
export async function readNames(): Promise<Names> {
  const [people] = await Promise.all([
    session.isAdmin ? api.users({ limit: 200 }).catch(() => []) : [],
    projects.all ?? projects.read().catch(() => {}),
  ]);
  const known = new Map(people.map(({ id, name }) => [id, name]));
  const own = session.me!;
  return {
    person: (id) => (id === own.id ? `${own.name} (you)` : (known.get(id) ?? shortened(id))),
    project: (id) =>
      id === null
        ? "No project"
        : (projects.all?.find((one) => one.id === id)?.name ?? `${shortened(id)} (deleted, or not yours)`),
  };
}

const shortened = (id: string): string => id.slice(0, 8);
