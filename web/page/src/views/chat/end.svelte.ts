const NEAR = 24;

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
    return () => {
      grown.disconnect();
      scroller.removeEventListener("scroll", this.#scrolled);
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
    if (isNear) this.isHere = true;
    else if (scrollTop < this.#top) this.isHere = false;
    this.#top = scrollTop;
  };

  #jump(): void {
    const scroller = this.#scroller;
    if (scroller) scroller.scrollTop = scroller.scrollHeight;
  }
}
