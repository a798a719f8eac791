import type { ChatDone, ChatEvent, ChatFailure, CitationEntry, MessageEntry, SourceChunk, Wait } from "archwright-client";
import { ending, told, thrown, whole, type Failure } from "./sentences.ts";
import { sourcesOf } from "./sources.ts";

/** How far an answer is. */
export type Phase =
  | "sending" | "searching" | "waiting" | "writing"
  | "complete" | "stopped" | "failed";

/** An answer as it comes in, or as it is stored. */
export class Answer {
  /** The run's id, which is the message's. */
  runId = $state<string | null>(null);
  phase = $state<Phase>("sending");
  /** Markdown. While it is written, it changes once in a frame at most. */
  text = $state.raw("");
  /** The passages that the model was given; null where that is not known (any more). */
  chunks = $state.raw<SourceChunk[] | null>(null);
  citations = $state.raw<CitationEntry[]>([]);
  model = $state<string | null>(null);
  /** What there is to say of a complete answer. */
  notes = $state.raw<string[]>([]);
  failure = $state.raw<Failure | null>(null);
  /** What goes on with the connection, or went on with the service. */
  notice = $state<string | null>(null);
  isStopping = $state(false);

  readonly isOver = $derived(["complete", "stopped", "failed"].includes(this.phase));
  readonly sources = $derived(sourcesOf(this.chunks, this.citations));

  #coming = "";
  #frame = 0;

  /** An answer that is stored. */
  static of(message: MessageEntry): Answer {
    const answer = new Answer();
    answer.runId = message.id;
    answer.phase = message.status === "streaming" ? "searching" : message.status;
    // What goes on is read from its first event.
    if (!answer.isOver) return answer;
    answer.text = message.content;
    answer.citations = message.citations;
    answer.model = message.model;
    if (answer.phase === "stopped") answer.notes = [ending("stopped")!];
    return answer;
  }

  /** Forget all, since it is about to begin anew. */
  reset(): void {
    cancelAnimationFrame(this.#frame);
    [this.#coming, this.#frame, this.text] = ["", 0, ""];
    [this.chunks, this.failure, this.notice, this.model] = [null, null, null, null];
    [this.citations, this.notes, this.isStopping] = [[], [], false];
    this.phase = "sending";
  }

  /** The run that tells what follows. */
  begins(runId: string): void {
    this.runId = runId;
    if (this.phase === "sending") this.phase = "searching";
  }

  /** The connection broke, or the service is away for a moment. */
  waits({ error }: Wait): void {
    this.notice = error.status > 0
      ? "The service is busy or away. This page tries again by itself."
      : "The connection broke. This page tries again by itself; nothing is lost.";
  }

  /** Take in what a stream has brought. */
  take(batch: readonly ChatEvent[]): void {
    for (const event of batch) this.#take(event);
  }

  /** It will not come. */
  fail(error: unknown): void {
    this.#flush();
    this.failure = thrown(error);
    this.phase = "failed";
  }

  #take(event: ChatEvent): void {
    if (event.type !== "meta" && this.notice !== AGAIN) this.notice = null;
    switch (event.type) {
      case "meta":
        this.model = event.data.model;
        this.phase = "searching";
        break;
      case "sources":
        this.chunks = event.data.chunks;
        this.phase = "waiting";
        break;
      case "text":
        this.phase = "writing";
        this.#coming += event.data.delta;
        this.#frame ||= requestAnimationFrame(() => this.#flush());
        break;
      case "done":
        this.#flush();
        this.citations = event.data.citations;
        this.notes = notesOf(event.data);
        this.phase = event.data.finishReason === "stopped" ? "stopped" : "complete";
        break;
      case "error":
        this.#failed(event.data);
    }
  }

  #failed(failure: ChatFailure): void {
    if (failure.nextRunId) {
      this.reset();
      this.phase = "searching";
      this.notice = AGAIN;
      return;
    }
    this.#flush();
    this.failure = told(failure);
    this.notice = null;
    this.phase = "failed";
  }

  #flush(): void {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    if (this.#coming) this.text += this.#coming;
    this.#coming = "";
  }
}

/** How it ended and what was warned of, but for what its markers say themselves. */
function notesOf({ finishReason, warnings }: ChatDone): string[] {
  const others = warnings.filter(({ code }) => code !== "unsupported_claim");
  const notes = [ending(finishReason), ...others.map(({ message }) => whole(message))];
  return notes.filter((note) => note !== undefined);
}

const AGAIN = "The service started anew in between, so the answer begins again.";
