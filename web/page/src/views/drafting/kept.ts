import { session } from "$/session.svelte.ts";
import type { Finding } from "./findings.ts";

/** What was asked for: with the same key it is never drafted twice. */
export interface Asked {
  conversation: string;
  message: string;
  key: string;
}

/** What a person has begun and not accepted; the tab keeps it over a reload. */
export interface Kept {
  /** The text with its edits; null where there is none yet. */
  text: string | null;
  /** The text as the model wrote it. */
  drafted: string | null;
  findings: Finding[];
  asked: Asked | null;
  /** The run that writes it; null once it is over. */
  run: string | null;
  /** What was typed for the next draft. */
  about: string;
}

/** What was kept of a type's draft. */
export function recall(project: string, type: string): Kept | null {
  try {
    return JSON.parse(sessionStorage.getItem(keyOf(project, type)) ?? "null") as Kept | null;
  } catch {
    return null;
  }
}

/** Keep it, or with null forget it; says whether the tab could. */
export function keep(project: string, type: string, kept: Kept | null): boolean {
  try {
    if (kept) sessionStorage.setItem(keyOf(project, type), JSON.stringify(kept));
    else sessionStorage.removeItem(keyOf(project, type));
    return true;
  } catch {
    // The storage is full or forbidden.
    return false;
  }
}

/** What only this tab knows of a type: that it is being written, or has edits; null for neither. */
export function begun(project: string, type: string): "writing" | "edited" | null {
  const kept = recall(project, type);
  if (!kept) return null;
  if (kept.text === null) return kept.run ? "writing" : null;
  return kept.text === kept.drafted ? null : "edited";
}

// Another person who signs in on this tab has other drafts.
function keyOf(project: string, type: string): string {
  return `archwright.draft.${session.me?.id ?? ""}.${project}.${type}`;
}
