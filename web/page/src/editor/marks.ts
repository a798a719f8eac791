/** Something that was found in a text, at a line that counts from 1. */
export interface Mark {
  line: number;
  severity: "error" | "warning";
  message: string;
}

/** The worst that was found at each line. */
export function worstByLine(marks: Mark[]): Map<number, Mark["severity"]> {
  const worst = new Map<number, Mark["severity"]>();
  for (const { line, severity } of marks) {
    if (worst.get(line) !== "error") worst.set(line, severity);
  }
  return worst;
}

/** Where a line begins in a text, and where it ends. */
export function lineSpan(text: string, line: number): [number, number] {
  let start = 0;
  for (let at = 1; at < line; at++) {
    const next = text.indexOf("\n", start);
    if (next < 0) break;
    start = next + 1;
  }
  const end = text.indexOf("\n", start);
  return [start, end < 0 ? text.length : end];
}
