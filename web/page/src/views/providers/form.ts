import type {
  AdminProvider,
  ModelBody,
  NewProvider,
  ProviderChange,
  Trial,
  TrialAnswer,
} from "archwright-client";

/** A model as it stands in the form; what is empty is not known. */
export interface ModelRow {
  name: string;
  contextWindow: number | null;
  inputPrice: number | null;
  outputPrice: number | null;
}

/** A provider as it stands in the form. */
export interface ProviderForm {
  name: string;
  slug: string;
  baseUrl: string;
  apiKey: string;
  models: ModelRow[];
  isDefault: boolean;
  isFallback: boolean;
  isEnabled: boolean;
}

export const FIELDS = ["name", "slug", "baseUrl", "apiKey", "models"];

/** A model of which nothing is known yet. */
export function emptyModel(): ModelRow {
  return { name: "", contextWindow: null, inputPrice: null, outputPrice: null };
}

/** The form of a provider, or of a new one. The key is never in it. */
export function formOf(provider?: AdminProvider): ProviderForm {
  return {
    name: provider?.name ?? "",
    slug: provider?.slug ?? "",
    baseUrl: provider?.baseUrl ?? "",
    apiKey: "",
    models: provider?.models.map((model) => ({ ...emptyModel(), ...model })) ?? [emptyModel()],
    isDefault: provider?.isDefault ?? false,
    isFallback: provider?.isFallback ?? false,
    isEnabled: provider?.isEnabled ?? true,
  };
}

/** The body that enters a new provider. */
export function bodyOf(form: ProviderForm): NewProvider {
  const { apiKey, ...rest } = form;
  return { ...rest, models: modelsOf(form), ...(apiKey.trim() && { apiKey: apiKey.trim() }) };
}

/** The body that changes a provider: what differs, and the key where one was typed. */
export function changeOf(form: ProviderForm, provider: AdminProvider): ProviderChange {
  const now = bodyOf(form);
  const before = bodyOf(formOf(provider));
  const changed = Object.entries(now).filter(
    ([name, value]) => JSON.stringify(value) !== JSON.stringify(before[name as keyof NewProvider]),
  );
  return Object.fromEntries(changed);
}

/** What to try of a provider that is being changed, before anything is saved. */
export function trialOf(form: ProviderForm, provider: AdminProvider): Trial {
  const { baseUrl, apiKey, models } = changeOf(form, provider);
  const model = (models ?? provider.models)[0]?.name ?? "";
  return { model, ...(baseUrl && { baseUrl }), ...(apiKey && { apiKey }) };
}

/** How a model answered, in a sentence. */
export function toldOf(model: string, { ok, latencyMs, status, sample }: TrialAnswer): string {
  if (ok) {
    const words = sample && `, beginning with “${sample}”`;
    return `${model} answered after ${latencyMs.toLocaleString("en")} ms${words}.`;
  }
  const known = status === null || sample.includes(String(status)) ? "" : ` (status ${status})`;
  return `${model} did not answer${known}. ${sample}`;
}

function modelsOf({ models }: ProviderForm): ModelBody[] {
  return models
    .filter(({ name }) => name.trim())
    .map(({ name, contextWindow, inputPrice, outputPrice }) => ({
      name: name.trim(),
      contextWindow: contextWindow ?? null,
      inputPrice: inputPrice ?? null,
      outputPrice: outputPrice ?? null,
    }));
}

/** A slug for a name: `Acme AI (EU)` is `acme-ai-eu`. */
export function slugOf(name: string): string {
  const plain = name.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase().replace(/[^a-z0-9]+/g, "-");
  return plain.replace(/^-|-$/g, "").slice(0, 60).replace(/-$/, "");
}
