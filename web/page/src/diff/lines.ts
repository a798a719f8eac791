import { diffWordsWithSpace, structuredPatch } from "diff";

/** A part of a line; `isChanged` where it is what differs from the line opposite. */
export interface Piece {
  text: string;
  isChanged: boolean;
}

/** A line of either text, with its numbers there, from 1. */
export interface DiffLine {
  kind: "same" | "removed" | "added";
  before: number | null;
  after: number | null;
  pieces: Piece[];
}

/** Changes that stand close together; `skipped` is how many equal lines were left out before. */
export interface Hunk {
  skipped: number;
  lines: DiffLine[];
}

const TIMEOUT_MS = 500;
const LONGEST_LINE = 4000;

/** What makes `after` out of `before`, with three equal lines around each change; empty where they
 * are equal. Texts that differ too much to be compared soon are given whole. */
export function hunksOf(before: string, after: string): Hunk[] {
  if (before === after) return [];
  const options = { context: 3, timeout: TIMEOUT_MS };
  const patch = structuredPatch("", "", ended(before), ended(after), "", "", options);
  if (!patch) return [whole(before, after)];
  let seen = 0;
  return patch.hunks.map((hunk) => {
    const start = hunk.oldStart - 1;
    const skipped = start - seen;
    seen = start + hunk.oldLines;
    return { skipped, lines: numbered(hunk.lines, hunk.oldStart, hunk.newStart) };
  });
}

/** How many lines were added and removed. */
export function changesIn(hunks: Hunk[]): { added: number; removed: number } {
  const kinds = hunks.flatMap(({ lines }) => lines.map(({ kind }) => kind));
  const all = (kind: string): number => kinds.filter((one) => one === kind).length;
  return { added: all("added"), removed: all("removed") };
}

// Whether a text ends with a line break is no change that people look for.
function ended(text: string): string {
  return text === "" || text.endsWith("\n") ? text : `${text}\n`;
}

const KINDS = { " ": "same", "-": "removed", "+": "added" } as const;

function numbered(signed: string[], before: number, after: number): DiffLine[] {
  const lines: DiffLine[] = [];
  for (const line of signed) {
    const kind = KINDS[line[0] as keyof typeof KINDS];
    if (!kind) continue;
    lines.push({
      kind,
      before: kind === "added" ? null : before++,
      after: kind === "removed" ? null : after++,
      pieces: [{ text: line.slice(1), isChanged: false }],
    });
  }
  markChanges(lines);
  return lines;
}

/** Mark the words that differ where as many lines were added as were removed. */
function markChanges(lines: DiffLine[]): void {
  for (let at = 0; at < lines.length; ) {
    const removed = runOf(lines, at, "removed");
    const added = runOf(lines, at + removed.length, "added");
    if (removed.length === added.length) {
      removed.forEach((line, nth) => markWords(line, added[nth]!));
    }
    at += Math.max(1, removed.length + added.length);
  }
}

function runOf(lines: DiffLine[], start: number, kind: DiffLine["kind"]): DiffLine[] {
  let end = start;
  while (lines[end]?.kind === kind) end++;
  return lines.slice(start, end);
}

function markWords(before: DiffLine, after: DiffLine): void {
  const [old, fresh] = [before.pieces[0]!.text, after.pieces[0]!.text];
  if (old.length + fresh.length > LONGEST_LINE) return;
  const parts = diffWordsWithSpace(old, fresh);
  // Lines that share hardly anything are easier to read as they are.
  const shared = parts.filter(({ added, removed }) => !added && !removed);
  const length = shared.reduce((sum, { value }) => sum + value.trim().length, 0);
  if (length * 4 < Math.min(old.length, fresh.length)) return;
  const side = (gone: "added" | "removed", mine: "added" | "removed"): Piece[] =>
    parts.filter((part) => !part[gone]).map((part) => ({ text: part.value, isChanged: part[mine] }));
  before.pieces = side("added", "removed");
  after.pieces = side("removed", "added");
}

function whole(before: string, after: string): Hunk {
  const lines = (text: string, sign: string): string[] =>
    text.split("\n").map((line) => sign + line);
  return { skipped: 0, lines: numbered([...lines(before, "-"), ...lines(after, "+")], 1, 1) };
}
