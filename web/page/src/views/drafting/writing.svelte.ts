import {
  ArchwrightError,
  readable,
  type DraftDone,
  type DraftEvent,
  type EventStream,
  type StreamRequest,
  type Wait,
} from "archwright-client";
import { api } from "$/api.ts";

/** What ended a draft early. */
export interface Failure {
  sentence: string;
  /** Whether the same request may succeed later. */
  mayRetry: boolean;
}

/** Where a draft is told; each is called at most once for a run. */
export interface Told {
  /** The run's id is known, or another run took its place. */
  onrun(runId: string): void;
  ondone(done: DraftDone): void;
  onfail(failure: Failure): void;
  /** The service does not keep the run any more. */
  ongone(): void;
}

/** A draft while the model writes it. */
export class Writing {
  /** What came so far, as it is to be shown; once in a frame at most. */
  text = $state("");
  /** Whether a draft is on its way. */
  isOn = $state(false);
  isStopping = $state(false);
  /** What holds it up, as a sentence; null while it goes on. */
  holdup = $state<string | null>(null);

  readonly #told: Told;
  #came = "";
  #frame = 0;
  #runId: string | null = null;
  #reading = new AbortController();
  #isLeft = false;

  constructor(told: Told) {
    this.#told = told;
  }

  /** Ask for a draft. */
  async begin(request: StreamRequest, key: string): Promise<void> {
    try {
      await this.#read((options) => api.draftStream(request, { ...options, key }));
    } catch (error) {
      // The same conversation, in another tab.
      if (error instanceof ArchwrightError && error.status === 409 && error.runId) {
        await this.follow(error.runId);
      } else this.#fail(error);
    }
  }

  /** Read a draft that was begun before, from its beginning. */
  async follow(runId: string): Promise<void> {
    try {
      await this.#read((options) => api.followDraft(runId, 0, options));
    } catch (error) {
      this.#fail(error);
    }
  }

  /** End it; what came so far stays. */
  async stop(): Promise<void> {
    if (!this.#runId || this.isStopping) return;
    this.isStopping = true;
    try {
      await api.stop(this.#runId);
    } catch (error) {
      this.isStopping = false;
      this.holdup = `It could not be stopped. ${readable(error)}`;
    }
  }

  /** What came so far, all of it. */
  get whole(): string {
    return this.#came;
  }

  /** Read no further; the service goes on. */
  leave(): void {
    this.#isLeft = true;
    this.#reading.abort();
  }

  async #read(open: (options: Reading) => EventStream<DraftEvent>): Promise<void> {
    if (this.#isLeft) return;
    this.#reading = new AbortController();
    const { signal } = this.#reading;
    Object.assign(this, { isOn: true, isStopping: false, holdup: null });
    this.#came = this.text = "";
    const stream = open({ signal, onRun: this.#onrun, onWait: this.#onwait });
    for await (const batch of stream.batches()) this.#take(batch);
  }

  readonly #onrun = (runId: string): void => {
    this.#runId = runId;
    this.#told.onrun(runId);
  };

  readonly #onwait = ({ error, ms }: Wait): void => {
    const again = `Trying again in ${Math.max(1, Math.round(ms / 1000))} s; nothing is lost.`;
    const isCut = error.code === "unreachable";
    this.holdup = `${isCut ? "The connection is broken." : error.message} ${again}`;
  };

  #take(batch: DraftEvent[]): void {
    if (!this.isStopping) this.holdup = null;
    for (const event of batch) {
      if (event.type === "message") this.#came += event.data.token;
      else if (event.type === "done") {
        this.isOn = false;
        this.#told.ondone(event.data);
      } else if (event.data.next_run_id) {
        this.#came = "";
        this.holdup = "The service was restarted and begins this draft anew.";
      } else {
        this.isOn = false;
        this.#told.onfail({ sentence: event.data.error, mayRetry: event.data.retry });
      }
    }
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.text = this.#came;
    });
  }

  #fail(error: unknown): void {
    if (this.#reading.signal.aborted) return;
    this.isOn = false;
    const status = error instanceof ArchwrightError ? error.status : 0;
    if (status === 410 || status === 404) this.#told.ongone();
    else this.#told.onfail({ sentence: readable(error), mayRetry: status === 0 || status >= 429 });
  }
}

interface Reading {
  signal: AbortSignal;
  onRun: (runId: string) => void;
  onWait: (wait: Wait) => void;
}
