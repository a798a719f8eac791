import { session } from "./session.svelte.ts";

/** A project as the caller sees it. */
export interface Project {
  id: string;
  name: string;
  description: string;
  color: string | null;
  isPrivate: boolean;
  instructions: string;
  settings: { model: string | null; temperature: number | null; topK: number | null };
  ownerId: string;
  createdAt: string;
  updatedAt: string;
  accessTier: Tier;
  accessSource: string;
  _count: { documents: number; conversations: number };
}

/** What a caller may do in a project, from less to more. */
export type Tier = "use" | "edit" | "full";

/** Calls a route. Stands in for the client until that is there. */
export async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
  const answer = await session.fetch(path, {
    method,
    ...(body !== undefined && {
      body: JSON.stringify(body),
      headers: { "Content-Type": "application/json" },
    }),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error((JSON.parse(text) as { message: string }).message);
  return (text ? JSON.parse(text) : undefined) as T;
}

/** What went wrong, as a sentence. */
export function sentence(error: unknown): string {
  return error instanceof Error ? error.message : "Something went wrong. Try again.";
}

/** Whether the caller's tier in a project is enough. */
export function allows(project: Project, needed: Tier): boolean {
  const tiers: Tier[] = ["use", "edit", "full"];
  return tiers.indexOf(project.accessTier) >= tiers.indexOf(needed);
}
