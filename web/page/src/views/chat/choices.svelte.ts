import type { ChatConfig, ListedModel, Mode } from "archwright-client";
import { api } from "$/api.ts";

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

/** Questions that were begun and not sent, by conversation. */
export const drafts = new Map<string, string>();
