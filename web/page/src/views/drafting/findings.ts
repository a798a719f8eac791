import type { Warning } from "archwright-client";

/** Something that the check found in a draft. */
export interface Finding {
  id: number;
  code: string;
  message: string;
  /** The line that it is about now, from 1; null where it is about the whole. */
  line: number | null;
  /** Whether nothing is left to do: its line was changed, or the person says so. */
  isSettled: boolean;
}

/** What a check found, in the order of the lines; what is about the whole comes first. */
export function findingsOf(warnings: Warning[]): Finding[] {
  return warnings
    .map(({ code, message, line }) => ({
      code,
      // The line moves, and is shown beside.
      message: message.replace(/^Line \d+: /, ""),
      line: line ?? null,
      isSettled: false,
    }))
    .sort((a, b) => (a.line ?? 0) - (b.line ?? 0))
    .map((finding, id) => ({ id, ...finding }));
}

/** The same findings at their lines in a text that was changed; one whose own line was changed
 * counts as settled. */
export function moved(findings: Finding[], before: string, after: string): Finding[] {
  const [old, now] = [before.split("\n"), after.split("\n")];
  const shortest = Math.min(old.length, now.length);
  let head = 0;
  while (head < shortest && old[head] === now[head]) head++;
  let tail = 0;
  while (tail < shortest - head && old.at(-1 - tail) === now.at(-1 - tail)) tail++;
  const by = now.length - old.length;
  return findings.map((finding) => {
    const { line } = finding;
    if (line === null || line <= head) return finding;
    if (line > old.length - tail) return by ? { ...finding, line: line + by } : finding;
    return { ...finding, line: clamp(line, 1, Math.max(now.length - tail, head, 1)), isSettled: true };
  });
}

/** From where on notes stand beside their lines without covering each other; all in pixels. */
export function placed(wanted: number[], heights: number[], gap: number): number[] {
  let free = 0;
  return wanted.map((top, at) => {
    const given = Math.max(top, free);
    free = given + heights[at]! + gap;
    return given;
  });
}

/** `3 findings, 1 of them settled`. */
export function summary(findings: Finding[]): string {
  const settled = findings.filter(({ isSettled }) => isSettled).length;
  const all = findings.length === 1 ? "1 finding" : `${findings.length} findings`;
  if (!settled) return all;
  return settled === findings.length ? `${all}, all settled` : `${all}, ${settled} of them settled`;
}

function clamp(value: number, least: number, most: number): number {
  return Math.min(Math.max(value, least), most);
}
