import type { ConversationEntry } from "archwright-client";
import { api } from "$/api.ts";

const PAGE = 40;

/** The caller's conversations in a project, those with the latest turn first. */
export class ConversationList {
  /** Null until they were read. */
  entries = $state.raw<ConversationEntry[] | null>(null);
  hasMore = $state(false);

  readonly #projectId: string;

  constructor(projectId: string) {
    this.#projectId = projectId;
  }

  /** Read the newest anew. */
  async read(): Promise<void> {
    const newest = await api.conversations.list(this.#projectId, { limit: PAGE });
    const known = new Set(newest.map(({ id }) => id));
    const oldest = newest.at(-1)?.updatedAt ?? "";
    const rest = (this.entries ?? []).filter(({ id, updatedAt }) => !known.has(id) && updatedAt < oldest);
    if (!rest.length) this.hasMore = newest.length === PAGE;
    this.entries = [...newest, ...rest];
  }

  /** Read those before the oldest that is known. */
  async more(): Promise<void> {
    const before = this.entries?.at(-1)?.updatedAt;
    if (!before) return;
    const older = await api.conversations.list(this.#projectId, { limit: PAGE, before });
    const known = new Set(this.entries!.map(({ id }) => id));
    this.entries = [...this.entries!, ...older.filter(({ id }) => !known.has(id))];
    this.hasMore = older.length === PAGE;
  }

  /** Give one another title. */
  async rename(id: string, title: string): Promise<void> {
    const renamed = await api.conversations.rename(id, title);
    this.entries = this.entries!.map((entry) => (entry.id === id ? { ...entry, title: renamed.title } : entry));
  }

  /** Erase one, with all that was said in it. */
  async delete(id: string): Promise<void> {
    await api.conversations.delete(id);
    this.entries = this.entries!.filter((entry) => entry.id !== id);
  }
}
