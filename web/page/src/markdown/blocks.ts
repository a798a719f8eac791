import { grammar, type Grammar, type Reading } from "./grammar.ts";

/** A block of the outermost level as HTML: one element, whose `parts` are elements in it.
 *
 * A list has its items as parts, a table its rows; anything else is a single part without a frame.
 */
export interface Block {
  open: string;
  parts: string[];
  close: string;
}

type Token = ReturnType<Grammar["parse"]>[number];

let shared: Grammar | undefined;

/** Markdown that grows into HTML, block by block.
 *
 * A block that another one follows cannot change any more: it is rendered once. What is rendered
 * in the end is the same wherever the text was cut.
 */
export class Blocks {
  /** Those that stay as they are. */
  readonly finished: Block[] = [];
  /** Those that more text may change: the last one, or two. */
  unfinished: Block[] = [];

  readonly #md = (shared ??= grammar());
  readonly #reading: Reading;
  #rest = "";

  constructor(reading: Reading = {}) {
    this.#reading = reading;
  }

  /** Read what has come; `isOver` once nothing more does. */
  push(text: string, isOver = false): void {
    const all = this.#rest + text;
    // The other half of a line end may follow.
    const end = !isOver && all.endsWith("\r") ? all.length - 1 : all.length;
    const open = all.slice(0, end).replace(/\r\n?/g, "\n");
    const tokens = this.#md.parse(isOver ? open : decided(open), this.#reading);
    const groups = blocksOf(tokens);
    const settled = isOver ? groups.length : settledIn(groups, open);
    for (const group of groups.slice(0, settled)) this.finished.push(this.#rendered(group));
    this.unfinished = groups.slice(settled).map((group) => this.#rendered(group));
    this.#rest = isOver ? "" : open.slice(start(groups[settled], open)) + all.slice(end);
  }

  #rendered(tokens: Token[]): Block {
    const { open, parts, close } = divided(tokens);
    const html = (some: Token[]): string =>
      this.#md.renderer.render(some, this.#md.options, this.#reading);
    return { open: html(open), parts: parts.map(html), close: html(close) };
  }
}

const UNDECIDED = /^(?:[-=+*_#|`~:> \t]*|[ \t>]*\d{1,9}[.)]?)$/;

/** Without a last line that does not say yet what it is: `-` may become an item, a rule, a dash. */
function decided(text: string): string {
  const last = text.lastIndexOf("\n") + 1;
  return UNDECIDED.test(text.slice(last)) ? text.slice(0, last) : text;
}

/** The blocks of the outermost level, each with its tokens. */
function blocksOf(tokens: Token[]): Token[][] {
  const groups: Token[][] = [];
  let group: Token[] = [];
  for (const token of tokens) {
    group.push(token);
    if (token.level > 0 || token.nesting > 0) continue;
    groups.push(group);
    group = [];
  }
  return groups;
}

/** How many blocks nothing can change: those before the last one that begins with a whole line. */
function settledIn(groups: Token[][], text: string): number {
  const last = groups.findLastIndex((group) => text.indexOf("\n", start(group, text)) >= 0);
  return Math.max(last, 0);
}

/** Where a block begins; without one, where the text does. */
function start(group: Token[] | undefined, text: string): number {
  let at = 0;
  for (let line = group?.[0]!.map?.[0] ?? 0; line > 0; line -= 1) at = text.indexOf("\n", at) + 1;
  return at;
}

/** A list by its items, a table by its rows, all else as a whole. */
function divided(tokens: Token[]): { open: Token[]; parts: Token[][]; close: Token[] } {
  const first = tokens[0]!.type;
  const level = /_list_open$/.test(first) ? 1 : first === "table_open" ? 2 : 0;
  if (!level) return { open: [], parts: [tokens], close: [] };
  const isRow = (token: Token): boolean => token.level === level && token.nesting !== 0;
  const body = level === 2 ? tokens.findIndex(({ type }) => type === "tbody_open") : 0;
  if (body < 0) return { open: [], parts: [tokens], close: [] };
  const parts: Token[][] = [];
  let from = body + 1;
  for (let at = from; at < tokens.length; at += 1) {
    if (!isRow(tokens[at]!) || tokens[at]!.nesting > 0) continue;
    parts.push(tokens.slice(from, at + 1));
    from = at + 1;
  }
  return { open: tokens.slice(0, body + 1), parts, close: tokens.slice(from) };
}
