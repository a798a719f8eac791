import { answered, type CallOptions, type Connection } from "./connection.ts";
import { ArchwrightError, unexpected, unreachable } from "./errors.ts";
import type { Told } from "./events.ts";
import { FrameParser, type Frame } from "./parsing.ts";
import { Patience, type Wait } from "./patience.ts";

/** Events one by one, or in the batches in which they came. Nothing is sent until it is read. */
export interface EventStream<E> extends AsyncGenerator<E, void, undefined> {
  /** The same events, all that one read of the connection brought at once. */
  batches(): AsyncGenerator<E[], void, undefined>;
}

export interface StreamOptions extends CallOptions {
  /**
   * Called with the run's id once it is known, and again for a run that takes its place: before
   * the `error` that names it.
   */
  onRun?: ((runId: string) => void) | undefined;
  /** Called whenever a connection begins to bring something, so also at the end of waiting. */
  onOpen?: (() => void) | undefined;
  /** Called before each pause after a connection that broke or was refused for now. */
  onWait?: ((wait: Wait) => void) | undefined;
}

/** A stream to read: how it begins, and where it goes on. */
export interface Origin {
  /** The POST that starts a run; without it the stream is read from `runId`. */
  post?: { path: () => string; body: unknown; key: string } | undefined;
  runId?: string | undefined;
  /** The number of the last event that is known. */
  after?: number | undefined;
  /** The path of the stream of what tells it. */
  pathOf: (id: string) => string;
}

/** The events of `origin`, over as many connections as it takes. */
export function eventStream<E extends Told<string, unknown>>(
  connection: Connection,
  origin: Origin,
  options: StreamOptions = {},
): EventStream<E> {
  const batches = resumed(connection, origin, options) as AsyncGenerator<E[], void, undefined>;
  return Object.assign(oneByOne(batches), { batches: () => batches });
}

async function* oneByOne<E>(batches: AsyncGenerator<E[]>): AsyncGenerator<E, void, undefined> {
  for await (const batch of batches) for (const event of batch) yield event;
}

type AnyEvent = Told<string, unknown>;

/** How far a stream was read. */
interface Place {
  runId: string | undefined;
  after: number;
  isOver: boolean;
}

async function* resumed(
  connection: Connection,
  origin: Origin,
  options: StreamOptions,
): AsyncGenerator<AnyEvent[], void, undefined> {
  const patience = new Patience(connection.patience, options);
  const place: Place = { runId: origin.runId, after: origin.after ?? 0, isOver: false };
  if (place.runId) options.onRun?.(place.runId);
  while (!place.isOver) {
    try {
      for await (const batch of connected(connection, origin, place, options)) {
        patience.refresh();
        yield batch;
      }
    } catch (error) {
      if (error instanceof ArchwrightError) error.runId ??= place.runId;
      await patience.wait(error);
    }
  }
}

/** What one connection brings: to the end of a run, or it throws. */
async function* connected(
  connection: Connection,
  origin: Origin,
  place: Place,
  options: StreamOptions,
): AsyncGenerator<AnyEvent[], void, undefined> {
  const line = new Line(connection.patience.silenceMs, options.signal);
  try {
    const response = await requested(connection, origin, place, line);
    if (nothingFollows(response)) {
      place.isOver = true;
      return;
    }
    const parser = new FrameParser();
    let isBegun = false;
    for await (const bytes of line.pieces(response)) {
      // Before its first byte it may lack headers: Chromium takes a head that broke off for whole.
      if (!isBegun) begin(response, place, options);
      isBegun = true;
      const batch = parser.push(bytes).map((frame) => eventOf(frame, response));
      const last = batch.at(-1);
      if (!last) continue;
      place.after = last.seq;
      if (isLast(last)) moveOn(place, last, options);
      yield batch;
      if (isLast(last)) return;
    }
  } finally {
    line.close();
  }
  throw unreachable("The stream ended without its last event.");
}

/** Whether the service says so: the last event is known already. */
function nothingFollows({ headers, status }: Response): boolean {
  return status === 204 && headers.has("X-Run-Id");
}

/** Check that it is a stream of the service, and learn the run. */
function begin({ headers, status }: Response, place: Place, options: StreamOptions): void {
  const isStream = headers.get("Content-Type")?.startsWith("text/event-stream");
  const runId = headers.get("X-Run-Id");
  if (!isStream || !runId) throw unexpected(status);
  if (!place.runId) options.onRun?.(runId);
  place.runId ??= runId;
  options.onOpen?.();
}

function isLast({ type }: AnyEvent): boolean {
  return type === "done" || type === "error";
}

/** Go to the run that the service has started in place of this one, if it has. */
function moveOn(place: Place, { data }: AnyEvent, options: StreamOptions): void {
  const { nextRunId, next_run_id } = data as { nextRunId?: string; next_run_id?: string };
  const next = nextRunId ?? next_run_id;
  place.isOver = !next;
  if (!next) return;
  place.runId = next;
  place.after = 0;
  options.onRun?.(next);
}

function requested(
  connection: Connection,
  origin: Origin,
  place: Place,
  line: Line,
): Promise<Response> {
  const { path, ...request } = requestFor(origin, place);
  const sent = { ...request, signal: line.signal };
  // A large body takes its time: 16 kB a second.
  const moreMs = (sent.body?.length ?? 0) / 16;
  return line.hear(() => connection.send(path, sent), moreMs);
}

interface StreamRequest {
  path: string;
  method: string;
  headers: Record<string, string>;
  body?: string;
  cache?: RequestCache;
}

/** The POST, as often as it takes to know the run; then what the run tells behind `after`. */
function requestFor({ post, pathOf }: Origin, { runId, after }: Place): StreamRequest {
  const headers: Record<string, string> = { Accept: "text/event-stream" };
  if (!runId) {
    headers["Content-Type"] = "application/json";
    headers["Idempotency-Key"] = post!.key;
    return { path: post!.path(), method: "POST", headers, body: JSON.stringify(post!.body) };
  }
  if (after) headers["Last-Event-ID"] = `${runId}:${after}`;
  // Else Chromium lets a second reader of the same stream wait for the first.
  return { path: pathOf(runId), method: "GET", headers, cache: "no-store" };
}

function eventOf({ id, name, data }: Frame, { status }: Response): AnyEvent {
  const colon = id.lastIndexOf(":");
  const place = { runId: id.slice(0, colon), seq: Number(id.slice(colon + 1)) };
  try {
    return { type: name, data: JSON.parse(data), ...place };
  } catch {
    throw unexpected(status);
  }
}

/** One connection. It is dead after a silence, and over once it is closed. */
class Line {
  readonly #own = new AbortController();
  readonly #silenceMs: number;
  readonly signal: AbortSignal;

  constructor(silenceMs: number, signal?: AbortSignal) {
    this.#silenceMs = silenceMs;
    this.signal = signal ? AbortSignal.any([signal, this.#own.signal]) : this.#own.signal;
  }

  /** What `doing` gives, if it does so in time. Nobody is waited for between two calls. */
  async hear<T>(doing: () => Promise<T>, moreMs = 0): Promise<T> {
    const silent = (): void => this.#own.abort(unreachable("It was silent for too long."));
    const timer = setTimeout(silent, this.#silenceMs + moreMs);
    try {
      return await doing();
    } finally {
      clearTimeout(timer);
    }
  }

  /** What comes of a body, as it comes. */
  async *pieces({ body }: Response): AsyncGenerator<Uint8Array, void, undefined> {
    const reader = body!.getReader();
    for (;;) {
      const read = await this.hear(() => answered(this.signal, () => reader.read()));
      if (read.done) return;
      yield read.value;
    }
  }

  close(): void {
    this.#own.abort();
  }
}
