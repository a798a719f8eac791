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

/** The question that was begun and not sent, in a conversation or, with null, in a new one. */
export function begunQuestion(project: string, conversation: string | null): string {
  return sessionStorage.getItem(keyOf(project, conversation)) ?? "";
}

/** Keep it with the tab, for whoever has written it. */
export function keepQuestion(project: string, conversation: string | null, text: string): void {
  const key = keyOf(project, conversation);
  try {
    if (text) sessionStorage.setItem(key, text);
    else sessionStorage.removeItem(key);
  } catch {
    // The storage is full: the text is in the field still.
  }
}

function keyOf(project: string, conversation: string | null): string {
  return `archwright.question.${session.me?.id ?? ""}.${project}.${conversation ?? ""}`;
}
