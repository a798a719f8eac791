import type { UsageEntry, Used } from "archwright-client";

/** What entries can be added up by. */
export type By = "day" | "projectId" | "userId" | "model";

/** What a bar can stand for. */
export type Measure = "totalTokens" | "runs" | "cost";

/** Entries added up: `key` is what they have in common. */
export interface Sum extends Used {
  key: string;
}

const DAY_MS = 86_400_000;

/** The entries added up by day, project, person or model; days newest first, others largest first. */
export function sumsBy(entries: UsageEntry[], by: By): Sum[] {
  const sums = new Map<string, Sum>();
  for (const entry of entries) {
    const key = keyOf(entry, by);
    sums.set(key, plus(sums.get(key) ?? nothing(key), entry));
  }
  const all = [...sums.values()];
  if (by === "day") return all.sort((a, b) => b.key.localeCompare(a.key));
  return all.sort((a, b) => b.totalTokens - a.totalTokens || b.runs - a.runs);
}

/** Each day from the first to the last, in UTC, those without entries too. */
export function daily(entries: UsageEntry[], from: string, to: string): Sum[] {
  const known = new Map(sumsBy(entries, "day").map((sum) => [sum.key, sum]));
  const days: Sum[] = [];
  for (let at = Date.parse(from); at <= Date.parse(to); at += DAY_MS) {
    const day = dayOf(at);
    days.push(known.get(day) ?? nothing(day));
  }
  return days;
}

/** A time's day in UTC, as in `2026-08-14`. */
export const dayOf = (time: number): string => new Date(time).toISOString().slice(0, 10);

/** The first day of as many days as end with `to`. */
export const daysBefore = (to: string, days: number): string =>
  dayOf(Date.parse(to) - (days - 1) * DAY_MS);

function keyOf(entry: UsageEntry, by: By): string {
  if (by !== "model") return entry[by] ?? "";
  return entry.model ? `${entry.provider ?? ""}/${entry.model}` : "";
}

function nothing(key: string): Sum {
  return { key, runs: 0, promptTokens: 0, completionTokens: 0, totalTokens: 0, cost: null };
}

function plus(sum: Sum, entry: Used): Sum {
  return {
    key: sum.key,
    runs: sum.runs + entry.runs,
    promptTokens: sum.promptTokens + entry.promptTokens,
    completionTokens: sum.completionTokens + entry.completionTokens,
    totalTokens: sum.totalTokens + entry.totalTokens,
    cost: entry.cost === null ? sum.cost : (sum.cost ?? 0) + entry.cost,
  };
}
