import assert from "node:assert/strict";
import { test } from "node:test";
import type { AdminProvider, UsageEntry } from "archwright-client";
import { bodyOf, changeOf, formOf, slugOf, toldOf, trialOf } from "../src/views/providers/form.ts";
import { daily, daysBefore, sumsBy } from "../src/views/usage/accounts.ts";

const PROVIDER: AdminProvider = {
  id: "1",
  name: "Acme",
  slug: "acme",
  baseUrl: "https://llm.acme.example/v1",
  apiKey: "sk-…0001",
  models: [{ name: "large", contextWindow: 8192, inputPrice: null, outputPrice: null }],
  isDefault: true,
  isFallback: false,
  isEnabled: true,
  isReadOnly: false,
  problem: null,
  createdAt: null,
  updatedAt: null,
};

test("a form changes what was changed in it alone, and never sends the masked key", () => {
  const form = formOf(PROVIDER);
  assert.equal(form.apiKey, "");
  assert.deepEqual(changeOf(form, PROVIDER), {});
  form.models.push({ name: " small ", contextWindow: null, inputPrice: 0.5, outputPrice: 1 });
  form.models.push({ name: " ", contextWindow: null, inputPrice: null, outputPrice: null });
  form.apiKey = " sk-new ";
  const small = { name: "small", contextWindow: null, inputPrice: 0.5, outputPrice: 1 };
  assert.deepEqual(changeOf(form, PROVIDER), {
    apiKey: "sk-new",
    models: [...PROVIDER.models, small],
  });
  assert.deepEqual(trialOf(form, PROVIDER), { model: "large", apiKey: "sk-new" });
});

test("a new provider has what was typed, and no key where none was", () => {
  const form = { ...formOf(), name: "Près d’ici (EU)", slug: slugOf("Près d’ici (EU)") };
  assert.deepEqual(bodyOf(form), {
    name: "Près d’ici (EU)",
    slug: "pres-d-ici-eu",
    baseUrl: "",
    models: [],
    isDefault: false,
    isFallback: false,
    isEnabled: true,
  });
});

test("a trial is told in a sentence", () => {
  const answer = { ok: true, latencyMs: 1200, status: 200, sample: "Hello" };
  assert.equal(toldOf("large", answer), "large answered after 1,200 ms, beginning with “Hello”.");
  const late = { ok: false, latencyMs: 15000, status: null, sample: "It was too late." };
  assert.equal(toldOf("large", late), "large did not answer. It was too late.");
});

test("usage is added up by what one wants, and days without any are there too", () => {
  const used = (day: string, userId: string, tokens: number, cost: number | null): UsageEntry => ({
    day,
    userId,
    projectId: null,
    provider: "acme",
    model: "large",
    runs: 1,
    promptTokens: tokens,
    completionTokens: 1,
    totalTokens: tokens + 1,
    cost,
  });
  const entries = [
    used("2026-03-01", "ada", 10, null),
    used("2026-02-27", "ada", 5, 0.5),
    used("2026-02-27", "bo", 30, 0.25),
  ];
  const total = (sums: { key: string; totalTokens: number; cost: number | null }[]): unknown[] =>
    sums.map(({ key, totalTokens, cost }) => [key, totalTokens, cost]);
  assert.deepEqual(total(sumsBy(entries, "userId")), [["bo", 31, 0.25], ["ada", 17, 0.5]]);
  assert.deepEqual(total(sumsBy(entries, "model")), [["acme/large", 48, 0.75]]);
  assert.deepEqual(total(daily(entries, daysBefore("2026-03-01", 3), "2026-03-01")), [
    ["2026-02-27", 37, 0.75],
    ["2026-02-28", 0, null],
    ["2026-03-01", 11, null],
  ]);
});
