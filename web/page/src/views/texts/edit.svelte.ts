import { ArchwrightError, readable, type Text, type TextFinding } from "archwright-client";
import { session } from "$/session.svelte.ts";
import { number } from "$/words.ts";
import { KeptEdits } from "./kept.ts";
import type { Scope } from "./scope.ts";
import { starterOf } from "./starters.ts";

const LONGEST = 100_000;

/** A text while it is being edited: what counts, what the person has, and how the two differ. */
export class TextEdit {
  readonly path: string;
  readonly scope: Scope;
  readonly #kept: KeptEdits;

  /** What counts now, as far as is known; null where there is no such text yet. */
  counts = $state.raw<Text | null>(null);
  /** What the person has. */
  content = $state("");
  /** What the person had before they took somebody else's text. */
  aside = $state<string | null>(null);
  /** What the last save found here and in other texts. */
  found = $state.raw<TextFinding[]>([]);
  /** Why the last save was refused. */
  error = $state<string | null>(null);
  isBusy = $state(false);
  /** Whether the tab could keep what is not saved. */
  isKept = $state(true);

  #base = $state<string | null>(null);
  #isOpen = $state(false);

  /** Whether the person has written something that is not saved. */
  readonly isDirty = $derived(this.content !== this.#beginning(this.counts));
  /** Whether somebody else has written since the person began. */
  readonly isOutdated = $derived(this.isDirty && this.#base !== (this.counts?.version ?? null));

  constructor(scope: Scope, path: string) {
    this.scope = scope;
    this.path = path;
    this.#kept = new KeptEdits(session.me!.id, scope.project?.id);
  }

  /** Why this cannot be a text, whatever else is in it; null where it can. */
  readonly unfit = $derived(
    this.content.length > LONGEST
      ? `A text has at most ${number(LONGEST)} characters. This one has ${number(this.content.length)}.`
      : this.content.trim()
        ? null
        : "Write something first.",
  );

  /** Whether what counts is written in this scope, so that it can be given up. */
  get isOwn(): boolean {
    return this.counts?.source === this.scope.layer;
  }

  /** Read what counts, and go on with what was not saved.
   *
   * @throws {ArchwrightError}
   */
  async open(): Promise<void> {
    this.#follow(await this.#read());
    const kept = this.#kept.get(this.path);
    if (kept) [this.content, this.#base] = [kept.content, kept.base];
    this.#isOpen = true;
  }

  /** Look whether somebody else has written meanwhile. */
  async refresh(): Promise<void> {
    if (this.isBusy) return;
    const before = this.counts;
    const now = await this.#read();
    // What was saved in between is newer.
    if (!this.isBusy && this.counts === before) this.#meet(now);
  }

  /** Keep what is not saved for this tab, once it is known what was kept before. */
  keep(): void {
    if (!this.#isOpen) return;
    if (this.isDirty) {
      this.isKept = this.#kept.put(this.path, { content: this.content, base: this.#base });
    } else this.#kept.drop(this.path);
  }

  /** Save; where that is refused, `error` and `found` say why. Says whether it was saved. */
  save(): Promise<boolean> {
    return this.#change(() => this.scope.texts.put(this.path, this.content, this.#base), this.content);
  }

  /** Make an older version count again. */
  restore(version: string): Promise<boolean> {
    const replaces = this.counts?.version ?? null;
    return this.#change(() => this.scope.texts.restore(this.path, version, replaces));
  }

  /** Let what lies beneath count again.
   *
   * @throws {ArchwrightError}
   */
  async giveUp(): Promise<void> {
    try {
      const beneath = await this.scope.texts.delete(this.path, this.counts!.version);
      const unsaved = this.isDirty ? this.content : null;
      this.#follow(beneath ?? null);
      if (unsaved !== null) this.content = unsaved;
    } catch (error) {
      if (error instanceof ArchwrightError && error.status === 412) await this.refresh();
      throw error;
    }
  }

  /** Go on with what the person has, over what counts now. */
  keepMine(): void {
    this.#base = this.counts?.version ?? null;
    this.error = null;
  }

  /** Go on with what counts now; what the person had is put aside. */
  takeTheirs(): void {
    this.aside = this.content;
    this.#follow(this.counts);
  }

  /** Have again what was put aside; what was written since is put aside for it. */
  takeBack(): void {
    if (this.aside === null) return;
    const written = this.isDirty ? this.content : null;
    [this.content, this.aside] = [this.aside, written];
  }

  async #read(): Promise<Text | null> {
    try {
      return await this.scope.texts.get(this.path);
    } catch (error) {
      if (error instanceof ArchwrightError && error.status === 404) return null;
      throw error;
    }
  }

  #follow(text: Text | null): void {
    this.counts = text;
    this.content = this.#beginning(text);
    this.#base = text?.version ?? null;
    this.error = null;
    this.found = [];
  }

  #beginning(text: Text | null): string {
    return text?.content ?? starterOf(this.path);
  }

  #meet(now: Text | null): void {
    if (this.isDirty) this.counts = now;
    else this.#follow(now);
  }

  async #change(
    write: () => Promise<{ text: Text; findings: TextFinding[] }>,
    written?: string,
  ): Promise<boolean> {
    if (this.isBusy) return false;
    this.isBusy = true;
    [this.error, this.found] = [null, []];
    try {
      const { text, findings } = await write();
      // What was typed meanwhile stays, over what is saved now.
      const typed = this.content;
      const isUntouched = written === undefined ? !this.isDirty : typed === written;
      if (isUntouched) this.#follow(text);
      else {
        this.counts = text;
        if (written !== undefined) this.#base = text.version;
      }
      this.found = findings;
      return true;
    } catch (error) {
      await this.#refused(error);
      return false;
    } finally {
      this.isBusy = false;
    }
  }

  async #refused(error: unknown): Promise<void> {
    if (error instanceof ArchwrightError) {
      this.found = error.findings;
      if (error.status === 412) this.#meet(await this.#read().catch(() => this.counts));
    }
    // What differs is shown, which says more than the sentence.
    this.error = this.isOutdated ? null : readable(error);
  }
}
