const NEAR = 24;
const LEAVING = ["wheel", "touchmove", "keydown"] as const;
const UPWARDS = ["ArrowUp", "PageUp", "Home"];

/** Keeps a scroller at its end as long as the reader is there. */
export class End {
  /** Whether the reader is at the end. */
  isHere = $state(true);

  #scroller: HTMLElement | null = null;
  #top = 0;

  /** Watch a scroller and its one child, which grows. */
  readonly watch = (scroller: HTMLElement) => {
    this.#scroller = scroller;
    const grown = new ResizeObserver(() => this.isHere && this.#jump());
    grown.observe(scroller);
    grown.observe(scroller.firstElementChild!);
    scroller.addEventListener("scroll", this.#scrolled, { passive: true });
    for (const type of LEAVING) scroller.addEventListener(type, this.#left, { passive: true });
    return () => {
      grown.disconnect();
      scroller.removeEventListener("scroll", this.#scrolled);
      for (const type of LEAVING) scroller.removeEventListener(type, this.#left);
    };
  };

  /** Go there. */
  go(): void {
    this.isHere = true;
    this.#jump();
  }

  readonly #scrolled = (): void => {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller!;
    const isNear = scrollHeight - scrollTop - clientHeight < NEAR;
    // Only a reader goes upwards. What has grown since is not their doing.
    if (isNear && scrollTop > this.#top) this.isHere = true;
    else if (!isNear && scrollTop < this.#top) this.isHere = false;
    this.#top = scrollTop;
  };

  /** Before the scroller has moved: else what grows meanwhile would take the reader back. */
  readonly #left = (event: Event): void => {
    const { scrollHeight, clientHeight } = this.#scroller!;
    const isUp =
      event instanceof WheelEvent ? event.deltaY < 0
      : event instanceof KeyboardEvent ? UPWARDS.includes(event.key)
      : true;
    if (isUp && scrollHeight > clientHeight) this.isHere = false;
  };

  #jump(): void {
    const scroller = this.#scroller;
    if (!scroller) return;
    scroller.scrollTop = scroller.scrollHeight;
    this.#top = scroller.scrollTop;
  }
}
