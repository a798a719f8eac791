import type { DocumentTypeEntry, TextEntry } from "archwright-client";
import { placeOf, spaced, titleOf } from "./names.ts";

export type KindChoice = "all" | "changed" | TextEntry["kind"];

/** What the list can be narrowed to. */
export const KINDS: { kind: KindChoice; label: string }[] = [
  { kind: "all", label: "All kinds" },
  { kind: "prompt", label: "Prompts" },
  { kind: "template", label: "Templates" },
  { kind: "example", label: "Examples" },
  { kind: "changed", label: "Not as in the files" },
];

/** A text of a row; without an entry it is not there, and could be written. */
export interface Part {
  label: string;
  path: string;
  entry: TextEntry | undefined;
}

/** A prompt, or a document type with its template and example. */
export interface Row {
  title: string;
  detail: string;
  parts: Part[];
}

/** The prompts, or the document types of a phase. */
export interface Group {
  name: string;
  rows: Row[];
}

const LABELS = { prompt: "Prompt", template: "Template", example: "Example" };

/** The texts whose title or path has what is wanted: prompts first, then each phase in its order. */
export function groupsOf(
  texts: TextEntry[],
  types: DocumentTypeEntry[],
  wanted: string,
  kind: KindChoice,
): Group[] {
  const rows = new Map<string, Row & { group: string }>();
  for (const entry of inOrder(texts, types)) {
    const { phase, type } = placeOf(entry.path);
    const detail = type || entry.path;
    const row = rows.get(detail) ?? {
      group: phase ? spaced(phase) : "Prompts",
      title: titleOf(entry.path, types),
      detail,
      parts: [],
    };
    row.parts.push({ label: LABELS[entry.kind], path: entry.path, entry });
    rows.set(detail, row);
  }
  const groups = new Map<string, Row[]>();
  for (const row of rows.values()) {
    const parts = withExample(row.parts, types).filter((part) => isOf(part, kind));
    const isWanted = parts.some(({ path }) => has(`${row.title} ${path}`, wanted));
    if (isWanted) groups.set(row.group, [...(groups.get(row.group) ?? []), { ...row, parts }]);
  }
  return [...groups].map(([name, of]) => ({ name, rows: of }));
}

function inOrder(texts: TextEntry[], types: DocumentTypeEntry[]): TextEntry[] {
  const order = new Map(types.map(({ type }, at) => [type, at]));
  const rank = ({ path, kind }: TextEntry): number =>
    (kind === "prompt" ? -1 : (order.get(placeOf(path).type) ?? types.length)) * 2 +
    (kind === "example" ? 1 : 0);
  return [...texts].sort((a, b) => rank(a) - rank(b) || a.path.localeCompare(b.path));
}

function isOf({ path, entry }: Part, kind: KindChoice): boolean {
  if (kind === "changed") return entry !== undefined && entry.source !== "file";
  return kind === "all" || placeOf(path).kind === kind;
}

/** A template without an example gets the place where one would be. */
function withExample(parts: Part[], types: DocumentTypeEntry[]): Part[] {
  const template = parts.find(({ entry }) => entry?.kind === "template");
  if (!template || parts.some(({ entry }) => entry?.kind === "example")) return parts;
  const { type } = placeOf(template.path);
  const output = types.find((one) => one.type === type)?.output_path ?? "";
  const name = output.endsWith(".json") ? "example.json" : "example.md";
  const path = template.path.replace(/template\.md$/, name);
  return [...parts, { label: "Example", path, entry: undefined }];
}

function has(text: string, wanted: string): boolean {
  const lower = text.toLowerCase();
  return wanted.toLowerCase().split(/\s+/).every((word) => lower.includes(word));
}
