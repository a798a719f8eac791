import type { Group, Person } from "archwright-client";
import { api } from "$/api.ts";
import { session } from "$/session.svelte.ts";

/** Whom a project can be shared with, as far as the caller may list them. */
export interface Known {
  people: Person[];
  groups: Group[];
}

/** Read them: all for admins, else the caller's own groups. Where that fails, none. */
export async function readKnown(): Promise<Known> {
  const [people, groups] = await Promise.all([
    session.isAdmin ? api.users({ limit: 200 }).catch(() => []) : [],
    api.groups({ limit: 200 }).catch(() => []),
  ]);
  return { people, groups };
}

/** The id of whom the person typed: an address, or for admins a name too; a group's name.
 *
 * @throws {Error} a sentence, where there is nobody of that name, or more than one.
 */
export async function targetOf(kind: "user" | "group", typed: string, known: Known): Promise<string> {
  const wanted = typed.trim();
  if (!wanted) throw new Error(kind === "user" ? "Type an e-mail address." : "Type the group’s name.");
  const found = kind === "user" ? await people(wanted, known) : await groups(wanted, known);
  if (found.length > 1) throw new Error("Several people have this name. Type the e-mail address.");
  if (found[0]) return found[0].id;
  throw new Error(
    kind === "user"
      ? "Nobody with this address has been here yet. They can be given a tier once they have signed in."
      : "No token has named this group yet. Type its whole name, as your organisation spells it.",
  );
}

async function people(wanted: string, { people: known }: Known): Promise<Person[]> {
  const named = known.filter(({ name }) => name === wanted);
  return named.length ? named : api.users({ email: wanted });
}

async function groups(wanted: string, { groups: known }: Known): Promise<Group[]> {
  const named = known.filter(({ name }) => name === wanted);
  return named.length ? named : api.groups({ name: wanted });
}
