import type { DiffLine } from "./lines.ts";

/** Two lines that stand beside each other; null where there is nothing opposite. */
export interface Pair {
  before: DiffLine | null;
  after: DiffLine | null;
}

/** The lines of a hunk as they stand beside each other: each change opposite what it replaces. */
export function pairsOf(lines: DiffLine[]): Pair[] {
  const pairs: Pair[] = [];
  for (let at = 0; at < lines.length; ) {
    const line = lines[at]!;
    if (line.kind === "same") {
      pairs.push({ before: line, after: line });
      at++;
      continue;
    }
    const removed = runOf(lines, at, "removed");
    const added = runOf(lines, at + removed.length, "added");
    for (let nth = 0; nth < Math.max(removed.length, added.length); nth++) {
      pairs.push({ before: removed[nth] ?? null, after: added[nth] ?? null });
    }
    at += removed.length + added.length;
  }
  return pairs;
}

function runOf(lines: DiffLine[], start: number, kind: DiffLine["kind"]): DiffLine[] {
  const end = lines.findIndex((line, at) => at >= start && line.kind !== kind);
  return lines.slice(start, end < 0 ? undefined : end);
}
