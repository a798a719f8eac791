import type { ChatConfig, ListedModel, Mode } from "archwright-client";
import { api } from "$/api.ts";
import { session } from "$/session.svelte.ts";

/** What is asked with, kept while the page is open; and what there is to choose from. */
class Choices {
  mode = $state<Mode>("docs");
  /** Empty for the project's own model, or the default. */
  modelId = $state("");
  config = $state.raw<ChatConfig>({ docs: true, web: false, deep: false });
  models = $state.raw<ListedModel[]>([]);

  /** Read what there is to choose from. */
  async read(): Promise<void> {
    [this.config, this.models] = await Promise.all([api.conversations.config(), api.providers.models()]);
    if (!this.config[this.mode]) this.mode = "docs";
    if (!this.models.some(({ id }) => id === this.modelId)) this.modelId = "";
  }
}

/** The choices of this page. */
export const choices = new Choices();

// The questions that are on their way from this page.
const leaving = new Set<string>();

/** The question that was begun and not sent, in a conversation or, with null, in a new one. One that
 * was sent and did not get there stands before it. */
export function begunQuestion(project: string, conversation: string | null): string {
  const [begun, sent] = [keyOf(project, conversation), keyOf(project, conversation, "sent")];
  const lost = leaving.has(sent) ? null : sessionStorage.getItem(sent);
  if (lost !== null) sessionStorage.removeItem(sent);
  return joined(lost, sessionStorage.getItem(begun));
}

/** Keep it with the tab, for whoever has written it. */
export function keepQuestion(project: string, conversation: string | null, text: string): void {
  keep(keyOf(project, conversation), text);
}

/** A question on its way: the tab keeps it until the service has it. */
export class SentQuestion {
  readonly #key: string;

  constructor(project: string, conversation: string | null, text: string) {
    this.#key = keyOf(project, conversation, "sent");
    leaving.add(this.#key);
    keep(this.#key, text);
  }

  /** The service has it, or the person has it back. */
  forget(): void {
    keep(this.#key, "");
  }

  /** It is not on its way any more. */
  close(): void {
    leaving.delete(this.#key);
  }
}

/** Texts as one, with an empty line between them. */
export function joined(...texts: (string | null)[]): string {
  return texts.filter((text) => text?.trim()).join("\n\n");
}

function keep(key: string, text: string): void {
  try {
    if (text) sessionStorage.setItem(key, text);
    else sessionStorage.removeItem(key);
  } catch {
    // The storage is full: the text is on the page still.
  }
}

function keyOf(project: string, conversation: string | null, kind = "question"): string {
  return `archwright.${kind}.${session.me?.id ?? ""}.${project}.${conversation ?? ""}`;
}
