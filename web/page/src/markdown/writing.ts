import { Blocks } from "./blocks.ts";
import type { Reading } from "./grammar.ts";
import { Painting } from "./painting.ts";

/** Milliseconds of a frame that all texts together may take. */
const BUDGET = 8;

/** Those that have something to show, the latest last. */
const waiting: Writing[] = [];
let frame = 0;

/** Shows a Markdown text that may grow, a little in each frame so that the page stays quick. */
export class Writing {
  readonly #element: HTMLElement;
  readonly #reading: Reading;
  readonly #onshown: (() => void) | undefined;
  #painting: Painting;
  #blocks: Blocks;
  #text = "";
  #wanted = { text: "", isOver: false };
  #isOver = false;
  #notBefore = 0;

  /** `onshown` is called after each change of `element`. */
  constructor(element: HTMLElement, reading: Reading = {}, onshown?: () => void) {
    this.#element = element;
    this.#reading = reading;
    this.#onshown = onshown;
    this.#painting = new Painting(element);
    this.#blocks = new Blocks(reading);
  }

  /** Show `text`. If it does not begin with what is shown, all is shown anew. */
  show(text: string, isOver: boolean): void {
    this.#wanted = { text, isOver };
    if (!waiting.includes(this)) waiting.push(this);
    frame ||= requestAnimationFrame(write);
  }

  /** Show nothing more. */
  end(): void {
    const at = waiting.indexOf(this);
    if (at >= 0) waiting.splice(at, 1);
  }

  /** Whether all that is wanted is shown, or some time has to pass before. */
  write(began: number): "done" | "more" | "rest" {
    const now = performance.now();
    if (now < this.#notBefore) return "rest";
    this.#read();
    const all = this.#painting.paint([...this.#blocks.finished, ...this.#blocks.unfinished], began + BUDGET);
    this.#onshown?.();
    // A text that is slow to read leaves most of the time to the person who reads it.
    const took = performance.now() - now;
    this.#notBefore = took > BUDGET ? now + 4 * took : 0;
    return all ? "done" : "more";
  }

  #read(): void {
    const { text, isOver } = this.#wanted;
    if (!text.startsWith(this.#text) || this.#isOver > isOver) this.#beginAnew();
    if (text.length === this.#text.length && isOver === this.#isOver) return;
    this.#blocks.push(text.slice(this.#text.length), isOver);
    this.#text = text;
    this.#isOver = isOver;
  }

  #beginAnew(): void {
    this.#element.replaceChildren();
    this.#painting = new Painting(this.#element);
    this.#blocks = new Blocks(this.#reading);
    this.#text = "";
    this.#isOver = false;
  }
}

function write(): void {
  const began = performance.now();
  const resting: Writing[] = [];
  // The last one first: that is where people read.
  while (waiting.length && performance.now() < began + BUDGET) {
    const state = waiting.at(-1)!.write(began);
    if (state === "more") break;
    const [one] = waiting.splice(-1);
    if (state === "rest") resting.push(one!);
  }
  waiting.push(...resting);
  frame = waiting.length ? requestAnimationFrame(write) : 0;
}
