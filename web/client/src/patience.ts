import { ArchwrightError } from "./errors.ts";

/** How long a client bears with a service that is away. Times in milliseconds. */
export interface PatienceLimits {
  /** Tries in a row that bring nothing. */
  tries: number;
  /** Before the second try; before the third it is twice that, and so on. */
  pauseMs: number;
  /** The longest `Retry-After` that is waited for. */
  longestWaitMs: number;
  /** After so much silence a connection counts as dead; the service speaks every 10 seconds. */
  silenceMs: number;
}

export const PATIENCE: PatienceLimits = {
  tries: 10,
  pauseMs: 1000,
  longestWaitMs: 60_000,
  silenceMs: 30_000,
};

/** A try that failed, and the pause before the next one. */
export interface Wait {
  /** How many have failed in a row. */
  tries: number;
  ms: number;
  error: ArchwrightError;
}

/** What may be told of waiting, and what ends it. */
export interface Waiting {
  signal?: AbortSignal | undefined;
  /** Called before each pause. */
  onWait?: ((wait: Wait) => void) | undefined;
}

/** Counts the tries of one undertaking, and pauses between them. */
export class Patience {
  readonly #limits: PatienceLimits;
  readonly #waiting: Waiting;
  #tries = 0;

  constructor(limits: PatienceLimits, waiting: Waiting) {
    this.#limits = limits;
    this.#waiting = waiting;
  }

  /** Something came: begin to count anew. */
  refresh(): void {
    this.#tries = 0;
  }

  /** Pause before the next try; throws `error` where another one does not help. */
  async wait(error: unknown): Promise<void> {
    if (!(error instanceof ArchwrightError) || !passes(error)) throw error;
    this.#tries += 1;
    const asked = (error.retryAfter ?? 0) * 1000;
    if (this.#tries >= this.#limits.tries || asked > this.#limits.longestWaitMs) throw error;
    // Not all clients of a service that comes back at the same moment.
    const ms = asked || this.#tries * this.#limits.pauseMs * (0.75 + Math.random() / 2);
    this.#waiting.onWait?.({ tries: this.#tries, ms, error });
    await pause(ms, this.#waiting.signal);
  }
}

const AWAY = [429, 502, 503, 504];

function passes(error: ArchwrightError): boolean {
  const { code, status } = error;
  return code === "unreachable" || code === "key_in_use" || AWAY.includes(status);
}

/** Wait so long, or until the network comes back. Throws once `signal` is aborted. */
async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  const over = new AbortController();
  await new Promise<void>((resolve) => {
    const wake = (): void => resolve();
    const timer = setTimeout(wake, ms);
    over.signal.addEventListener("abort", () => clearTimeout(timer));
    signal?.addEventListener("abort", wake, { signal: over.signal });
    if (typeof window !== "undefined") {
      window.addEventListener("online", wake, { signal: over.signal });
    }
  });
  over.abort();
  signal?.throwIfAborted();
}
