import type { DocumentTypeEntry, HistoryEntryOutput, Text, TextEntry } from "archwright-client";

const PROMPTS: Record<string, [string, string]> = {
  "prompts/answer.md": ["Answers", "What the model is told before each question."],
  "prompts/draft.md": ["Drafts", "What the model is told before each draft."],
  "prompts/question.md": ["Questions", "How the question and the material are laid out for it."],
};

/** What a path stands for; `type` and `phase` are empty for prompts. */
export interface Place {
  kind: TextEntry["kind"];
  phase: string;
  type: string;
}

/** What a path stands for. */
export function placeOf(path: string): Place {
  const [root, phase = "", type = "", file = ""] = path.split("/");
  if (root === "prompts") return { kind: "prompt", phase: "", type: "" };
  return { kind: file.startsWith("example.") ? "example" : "template", phase, type };
}

/** What people call a text. */
export function titleOf(path: string, types: DocumentTypeEntry[]): string {
  const { kind, type } = placeOf(path);
  if (kind === "prompt") return PROMPTS[path]?.[0] ?? path;
  return types.find((one) => one.type === type)?.title ?? spaced(type);
}

/** What a text is for, in a sentence. */
export function purposeOf(path: string): string {
  const { kind } = placeOf(path);
  if (kind === "prompt") return PROMPTS[path]?.[1] ?? "";
  return kind === "template"
    ? "The headings, comments and placeholders that the model fills."
    : "A finished document. The model takes depth and tone from it, never facts.";
}

/** A phase or type as words: `data-model` is `Data model`. */
export function spaced(name: string): string {
  const words = name.replace(/[-_]+/g, " ").toLowerCase().trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** Where a text comes from, in a word or two. */
export const SOURCES: Record<Text["source"], string> = {
  file: "File",
  edit: "Edited",
  override: "This project’s own",
};

/** What happened at an entry of the history. */
export function eventOf({ version, source, author }: HistoryEntryOutput): string {
  if (source === "file") return "The file";
  const what = version ? "Written" : "Given up";
  const where = source === "override" ? " for this project" : "";
  return `${what}${where} by ${author ?? "somebody"}`;
}

const SHORT = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });

/** An entry of the history in a few words: who, and when. */
export function shortly({ source, author, created_at }: HistoryEntryOutput): string {
  const who = source === "file" ? "File" : (author ?? "Somebody");
  return `${who}, ${SHORT.format(new Date(created_at))}`;
}
