/** How far a draft is, told by the headings that it has to contain. */
export interface Progress {
  lines: number;
  words: number;
  /** The required heading that is being written below; null before the first. */
  heading: string | null;
  /** Its place among all of them, from 1; 0 before the first. */
  at: number;
}

/** How far `text` is on its way through `headings`. */
export function progressOf(text: string, headings: string[]): Progress {
  const lines = text.split("\n");
  const seen = new Set(lines.map(titleOf));
  const at = headings.findLastIndex((heading) => seen.has(plain(heading))) + 1;
  return {
    lines: text ? lines.length : 0,
    words: text.match(/\S+/g)?.length ?? 0,
    heading: headings[at - 1] ?? null,
    at,
  };
}

/** What a line is the heading or the key of; null where it is neither. */
function titleOf(line: string): string | null {
  const found = /^##\s+(.+)$/.exec(line) ?? /^\s{0,4}"([^"]+)"\s*:/.exec(line);
  return found ? plain(found[1]!) : null;
}

/** As the check compares headings: capitals, numbers before and a colon behind do not count. */
function plain(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/^[\d.)\s]+/, "")
    .replace(/[\s:#]+$/, "");
}
