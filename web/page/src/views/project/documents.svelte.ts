import { ArchwrightError, readable, type Document } from "archwright-client";
import { announce } from "$/announcements.svelte.ts";
import { api } from "$/api.ts";
import { session } from "$/session.svelte.ts";
import { SvelteMap } from "svelte/reactivity";

const PAGE = 100;
// A browser has six connections for one address, and others are needed too.
const FOLLOWED = 2;
const PAUSE_MS = 5000;

/** How far a document is: what is done with it now, and how much of that. */
export interface Progress {
  stage: string;
  done: number;
  total: number;
}

/** A file on its way to the service; `error` says why it did not get there. */
export interface Sending {
  id: number;
  name: string;
  sent: number;
  total: number;
  error: string | null;
}

/** The documents of a project, kept true while they are uploaded and taken in. */
export class Documents {
  /** The newest first; null until they were read. */
  all = $state.raw<Document[] | null>(null);

  /** Whether there are older ones that were not read. */
  hasMore = $state(false);

  /** Files that are not there yet, in the order in which they were chosen. */
  sending = $state<Sending[]>([]);

  /** How far those are that are being taken in, by their ids. */
  readonly progress = new SvelteMap<string, Progress>();

  readonly #project: string;
  #over = new AbortController();
  readonly #followed = new Set<string>();
  #queue: { sending: Sending; file: File }[] = [];
  #isSending = false;
  #numbers = 0;

  constructor(project: string) {
    this.#project = project;
  }

  /** Begin to follow what is taken in, when a view shows them. */
  open(): void {
    this.#over = new AbortController();
  }

  /** Read the newest documents anew.
   *
   * @throws {ArchwrightError}
   */
  async read(): Promise<void> {
    for (;;) {
      const before = this.all;
      const limit = Math.max(PAGE, Math.min(before?.length ?? 0, 2 * PAGE));
      const found = await api.documents.list(this.#project, { limit, signal: this.#over.signal });
      // What came or went meanwhile is newer than this answer.
      if (this.all === before) return this.#show(found, limit);
    }
  }

  /** Read older ones.
   *
   * @throws {ArchwrightError}
   */
  async more(): Promise<void> {
    const known = this.all ?? [];
    const before = known.at(-1)?.createdAt;
    const older = await api.documents.list(this.#project, { limit: PAGE, before });
    // The list was read anew meanwhile, and may end elsewhere.
    if (this.all && this.all !== known) return this.more();
    this.#show([...known, ...older.filter(({ id }) => known.every((one) => one.id !== id))]);
    this.hasMore = older.length === PAGE;
  }

  /** Send files, one after the other: what is wrong with one does not keep the others. */
  upload(files: Iterable<File>): void {
    for (const file of files) {
      const number = this.#numbers++;
      this.sending.push({ id: number, name: file.name, sent: 0, total: file.size, error: null });
      this.#queue.push({ sending: this.sending.at(-1)!, file });
    }
    void this.#send();
  }

  /** Take away the line of a file that did not get there. */
  dismiss(id: number): void {
    this.sending = this.sending.filter((one) => one.id !== id);
  }

  /** Delete a document.
   *
   * @throws {ArchwrightError}
   */
  async delete(document: Document): Promise<void> {
    try {
      await api.documents.delete(document.id);
    } catch (error) {
      // Somebody else was faster.
      if (!isGone(error)) throw error;
    }
    this.all = this.all?.filter(({ id }) => id !== document.id) ?? null;
    announce(`${document.name} is deleted.`);
  }

  /** Follow no more, when the view is left. What is being sent goes on. */
  close(): void {
    this.#over.abort();
  }

  async #send(): Promise<void> {
    if (this.#isSending) return;
    this.#isSending = true;
    addEventListener("beforeunload", hold);
    for (let next = this.#queue.shift(); next; next = this.#queue.shift()) {
      await this.#sendOne(next.sending, next.file);
    }
    this.#isSending = false;
    removeEventListener("beforeunload", hold);
  }

  async #sendOne(sending: Sending, file: File): Promise<void> {
    try {
      const [document] = await this.#uploaded(sending, file);
      this.dismiss(sending.id);
      const rest = (this.all ?? []).filter(({ id }) => id !== document!.id);
      this.#show([document!, ...rest]);
    } catch (error) {
      sending.error = readable(error);
      announce(`${file.name} was not uploaded. ${sending.error}`);
    }
  }

  async #uploaded(sending: Sending, file: File): Promise<Document[]> {
    for (;;) {
      const used = session.credentials();
      try {
        return await api.documents.upload(this.#project, [file], {
          onProgress: (sent, total) => ([sending.sent, sending.total] = [sent, total]),
        });
      } catch (error) {
        // An upload that tells its progress does not go through `fetch`, which would ask by itself.
        if (!(error instanceof ArchwrightError && error.status === 401)) throw error;
        if (used === session.credentials()) await session.ask();
      }
    }
  }

  #show(documents: Document[], limit?: number): void {
    this.all = documents;
    if (limit !== undefined) this.hasMore = documents.length === limit;
    this.#follow();
  }

  /** Follow the oldest of those that are being taken in: they come first in the service too. */
  #follow(): void {
    if (this.#over.signal.aborted) return;
    const waiting = (this.all ?? []).filter(({ status }) => status === "processing").reverse();
    for (const document of waiting) {
      if (this.#followed.size === FOLLOWED) return;
      if (!this.#followed.has(document.id)) void this.#followOne(document);
    }
  }

  async #followOne({ id, name }: Document): Promise<void> {
    const { signal } = this.#over;
    this.#followed.add(id);
    try {
      for await (const event of api.documents.events(id, 0, { signal })) {
        if (event.type === "progress") this.progress.set(id, event.data);
      }
      // A version that is found takes the place of the one before, and one that fails says why.
      await this.read();
      this.#tell(id, name);
    } catch (error) {
      // Somebody has deleted it meanwhile.
      if (isGone(error)) this.all = this.all?.filter((one) => one.id !== id) ?? null;
      else if (!signal.aborted) await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    } finally {
      this.#followed.delete(id);
      this.progress.delete(id);
      this.#follow();
    }
  }

  #tell(id: string, name: string): void {
    const now = this.all?.find((document) => document.id === id);
    if (now?.status === "indexed") announce(`${name} is ready.`);
    if (now?.status === "failed") announce(`${name} cannot be used. ${now.error ?? ""}`);
  }
}

const known = new Map<string, Documents>();

/** The documents of a project: the same ones each time, so that what is being sent is not lost. */
export function documentsOf(project: string): Documents {
  const documents = known.get(project) ?? new Documents(project);
  known.set(project, documents);
  documents.open();
  return documents;
}

function isGone(error: unknown): boolean {
  return error instanceof ArchwrightError && error.status === 404;
}

/** Has the browser ask before the page is closed. */
function hold(event: BeforeUnloadEvent): void {
  event.preventDefault();
}
