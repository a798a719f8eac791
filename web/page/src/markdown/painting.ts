import DOMPurify, { type Config } from "dompurify";
import type { Block } from "./blocks.ts";

const PLAIN = ["aria-label", "class", "data-source", "rel", "role", "start", "tabindex", "target", "type"];

// All that the grammar makes, and nothing beyond it.
const ALLOWED: Config & { RETURN_DOM_FRAGMENT: true } = {
  ALLOWED_TAGS: [
    "a", "blockquote", "br", "button", "code", "del", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6",
    "hr", "li", "ol", "p", "pre", "s", "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
  ],
  ALLOWED_ATTR: ["href", ...PLAIN],
  ADD_URI_SAFE_ATTR: PLAIN,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  RETURN_DOM_FRAGMENT: true,
};

/** Shows blocks in an element, and changes no more of it than has changed. */
export class Painting {
  readonly #element: HTMLElement;
  #shown: Block[] = [];

  constructor(element: HTMLElement) {
    this.#element = element;
  }

  /** Show `blocks`, at least one more of them, until `deadline` (of `performance.now()`) is past.
   *
   * Returns whether all are shown.
   */
  paint(blocks: readonly Block[], deadline = Infinity): boolean {
    for (let at = this.#firstChanged(blocks); at < blocks.length; at += 1) {
      this.#show(blocks[at]!, at);
      if (performance.now() > deadline && at + 1 < blocks.length) return false;
    }
    while (this.#shown.length > blocks.length) {
      this.#shown.pop();
      this.#element.lastElementChild!.remove();
    }
    return true;
  }

  #firstChanged(blocks: readonly Block[]): number {
    const shown = this.#shown;
    // Those before the last few are finished, and finished ones are the same objects.
    let at = Math.min(shown.length, blocks.length);
    while (at > 0 && shown[at - 1] !== blocks[at - 1]) at -= 1;
    return at;
  }

  #show(block: Block, at: number): void {
    const old = this.#shown[at];
    const element = this.#element.children[at];
    this.#shown[at] = block;
    if (!old || !element) this.#element.append(one(block));
    else if (!block.open || old.open !== block.open) become(element, one(block));
    else grow(element, old, block);
  }
}

function one({ open, parts, close }: Block): Element {
  const fragment = DOMPurify.sanitize(open + parts.join("") + close, ALLOWED);
  return fragment.firstElementChild ?? document.createElement("p");
}

/** Give a list or table the parts that it did not have yet. */
function grow(element: Element, old: Block, block: Block): void {
  const { open, parts, close } = block;
  const isSame = (part: string, at: number): boolean => part === old.parts[at];
  const from = parts.findIndex((part, at) => !isSame(part, at));
  const within = inside(element);
  if (from >= 0) {
    const fresh = [...inside(one({ open, parts: parts.slice(from), close })).children];
    for (const [index, made] of fresh.entries()) {
      const existing = within.children[from + index];
      if (existing) become(existing, made);
      else within.append(made);
    }
  }
  while (within.children.length > parts.length) within.lastElementChild!.remove();
}

function inside(element: Element): Element {
  return element.querySelector(":scope > table > tbody") ?? element;
}

/** Make `old` what `fresh` is, and keep all nodes that are the same: what is selected stays so. */
function become(old: Element, fresh: Element): void {
  if (old.nodeName !== fresh.nodeName || old.className !== fresh.className) {
    old.replaceWith(fresh);
    return;
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const wanted = [...fresh.childNodes];
  for (const [at, node] of wanted.entries()) {
    const existing = old.childNodes[at];
    if (!existing) old.append(node);
    else if (existing instanceof Element && node instanceof Element) become(existing, node);
    else if (existing instanceof Text && node instanceof Text) renew(existing, node);
    else existing.replaceWith(node);
  }
  while (old.childNodes.length > wanted.length) old.lastChild!.remove();
}

function renew(old: Text, { data }: Text): void {
  if (data === old.data) return;
  if (data.startsWith(old.data)) old.appendData(data.slice(old.data.length));
  else old.data = data;
}
