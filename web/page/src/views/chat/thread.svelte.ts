import { ArchwrightError, newId, type EventStream, type ChatEvent, type MessageEntry, type Mode } from "archwright-client";
import { announce } from "$/announcements.svelte.ts";
import { api } from "$/api.ts";
import { Answer } from "./answer.svelte.ts";
import { SentQuestion } from "./choices.svelte.ts";
import { told } from "./sentences.ts";

/** A question, and what it is asked with. */
export interface Asked {
  message: string;
  mode: Mode;
  modelId: string | null;
}

interface Request extends Asked {
  conversationId: string | null;
  key: string;
}

/** A question and its answer. */
export interface Turn {
  /** Stays the same as long as the turn is shown. */
  id: string;
  /** Null where there is an answer only. */
  question: string | null;
  answer: Answer | null;
  /** What it was asked with, if that was on this page. */
  request?: Request;
  /** Whether sending that again brings the same failure, since it may not pass. */
  spent?: boolean;
}

const tabs = new BroadcastChannel("archwright.conversations");

/** A conversation: what was said, and what is being said. */
export class Thread {
  /** Null until the first question is on its way. */
  id = $state<string | null>(null);
  title = $state<string | null>(null);
  turns = $state<Turn[]>([]);
  messageCount = 0;

  /** The answer that is being written. */
  readonly current = $derived.by(() => {
    const answer = this.turns.at(-1)?.answer;
    return answer && !answer.isOver ? answer : null;
  });

  readonly #projectId: string;
  readonly #changed: (thread: Thread) => void;
  readonly #leaving = new AbortController();
  #isLeft = false;

  /** `changed` is called once a conversation is there that was new, and when a turn is over. */
  constructor(projectId: string, id: string | null, changed: (thread: Thread) => void) {
    this.#projectId = projectId;
    this.#changed = changed;
    this.id = id;
    const heard = ({ data }: MessageEvent): void => {
      if (data === this.id && !this.current) void this.read().catch(() => {});
    };
    tabs.addEventListener("message", heard, { signal: this.#leaving.signal });
  }

  /** Read what is stored, and follow an answer that is being written.
   *
   * @throws {ArchwrightError} such as for a conversation that is not there.
   */
  async read(): Promise<void> {
    if (!this.id) return;
    const { signal } = this.#leaving;
    const last = this.turns.at(-1)?.id;
    const conversation = await api.conversations.get(this.id, { signal });
    // Something was asked meanwhile, of which the answer knows nothing.
    if (this.turns.at(-1)?.id !== last) return;
    this.title = conversation.title;
    this.messageCount = conversation.messages.length;
    this.turns = merged(this.turns, conversation.messages);
    const { current } = this;
    if (current?.runId && !followed.has(current)) void this.#follow(current, current.runId);
    else if (!current) void this.#explain(this.turns.at(-1));
  }

  /** Ask, and show the answer as it comes.
   *
   * @throws {ArchwrightError} where the question was not taken; nothing of it is shown then.
   */
  async ask(asked: Asked): Promise<void> {
    const request: Request = { ...asked, conversationId: this.id, key: newId() };
    const turn: Turn = { id: request.key, question: asked.message, answer: new Answer(), request };
    this.turns.push(turn);
    await this.#send(this.turns.at(-1)!, request);
  }

  /** Send the question of a failed answer again; as it was, so that it stays one, where that helps.
   *
   * @throws {ArchwrightError} where it was not taken.
   */
  async retry(turn: Turn, asked: Asked): Promise<void> {
    const { request } = turn;
    const isSame = request && request.mode === asked.mode && request.modelId === asked.modelId;
    if (!isSame || turn.spent) return this.ask(asked);
    const failed = turn.answer!.runId;
    turn.answer!.reset();
    await this.#send(turn, request);
    // The service does not ask a model again that refuses for good: its answer was the same one.
    if (turn.answer!.phase !== "failed" || turn.answer!.runId !== failed) return;
    turn.spent = true;
    await this.ask(asked);
  }

  /** Have the answer that is being written end where it is. */
  async stop(): Promise<void> {
    const answer = this.current;
    if (!answer) return;
    answer.isStopping = true;
    // Else as soon as the run is known.
    if (!answer.runId) return;
    try {
      await api.stop(answer.runId);
    } catch (error) {
      answer.isStopping = false;
      throw error;
    }
  }

  /** Take no more in. What is being written goes on without a reader, once it was taken. */
  close(): void {
    this.#isLeft = true;
    if (!this.current || this.current.runId) this.#leaving.abort();
  }

  async #send(turn: Turn, request: Request): Promise<void> {
    const answer = turn.answer!;
    const { message, conversationId, modelId, mode, key } = request;
    followed.add(answer);
    // One that is sent again with its key may be stored already.
    const sent = answer.runId ? null : new SentQuestion(this.#projectId, conversationId, message);
    try {
      const options = { ...this.#options(answer, sent), key };
      const stream = api.chatStream(this.#projectId, message, conversationId, modelId, mode, options);
      await this.#show(stream, answer);
    } catch (error) {
      if (this.#leaving.signal.aborted) return;
      if (!isRefusal(error)) return this.#fail(answer, error);
      this.turns = this.turns.filter(({ id }) => id !== turn.id);
      if (!this.#isLeft) sent?.forget();
      if (error.status === 409) await this.read();
      throw error;
    } finally {
      sent?.close();
      if (this.#isLeft) this.#leaving.abort();
    }
  }

  async #follow(answer: Answer, runId: string): Promise<void> {
    followed.add(answer);
    try {
      await this.#show(api.followRun(runId, 0, this.#options(answer)), answer);
    } catch (error) {
      if (this.#leaving.signal.aborted) return;
      followed.delete(answer);
      // What it told is not kept any more; what it wrote is.
      const isGone = error instanceof ArchwrightError && [404, 410].includes(error.status);
      if (isGone && (await this.#isOver(runId))) await this.read().catch(() => this.#fail(answer, error));
      else this.#fail(answer, error);
    }
  }

  async #isOver(runId: string): Promise<boolean> {
    const conversation = await api.conversations.get(this.id!).catch(() => null);
    return conversation?.messages.find(({ id }) => id === runId)?.status !== "streaming";
  }

  #options(answer: Answer, sent?: SentQuestion | null) {
    return {
      signal: this.#leaving.signal,
      onWait: answer.waits.bind(answer),
      onRun: (runId: string): void => {
        answer.begins(runId);
        sent?.forget();
        if (answer.isStopping) void this.stop().catch(() => {});
        if (!this.#isLeft) return;
        this.#leaving.abort();
        this.#changed(this);
      },
    };
  }

  async #show(stream: EventStream<ChatEvent>, answer: Answer): Promise<void> {
    for await (const batch of stream.batches()) {
      answer.take(batch);
      const meta = batch.find(({ type }) => type === "meta");
      if (meta?.type === "meta") this.#begun(meta.data.conversationId);
    }
    this.#over(answer);
  }

  #begun(conversationId: string): void {
    tabs.postMessage(conversationId);
    if (this.id === conversationId) return;
    this.id = conversationId;
    this.#changed(this);
  }

  #over(answer: Answer): void {
    const { phase, failure } = answer;
    if (phase === "failed") announce(`The answer failed. ${failure?.sentence ?? ""}`);
    else announce(phase === "stopped" ? "Answer stopped." : "Answer complete.");
    tabs.postMessage(this.id);
    this.#changed(this);
  }

  #fail(answer: Answer, error: unknown): void {
    answer.fail(error);
    this.#over(answer);
  }

  /** Say why the last answer failed, which its message does not. */
  async #explain(turn: Turn | undefined): Promise<void> {
    const answer = turn?.answer;
    if (answer?.phase !== "failed" || answer.failure || !answer.runId) return;
    const run = await api.run(answer.runId).catch(() => null);
    const error = run?.error as Parameters<typeof told>[0] | null | undefined;
    if (typeof error?.detail === "string") answer.failure = told(error);
  }
}

/** The answers whose streams are being read on this page. */
const followed = new WeakSet<Answer>();

/** Whether the service has answered, and did not take the question. */
function isRefusal(error: unknown): error is ArchwrightError {
  if (!(error instanceof ArchwrightError)) return false;
  return error.status >= 400 && error.status < 500 && error.status !== 429 && !error.runId
    || error.status === 409;
}

/** The turns of stored messages; those that are shown already stay the same. */
function merged(shown: readonly Turn[], messages: readonly MessageEntry[]): Turn[] {
  const known = new Map(shown.map((turn) => [turn.answer?.runId, turn]));
  const turns: Turn[] = [];
  for (const message of messages) {
    // It was asked again after a crash; the later answer stands in its place.
    if (message.isSuperseded) continue;
    if (message.role === "user") {
      turns.push({ id: message.id, question: message.content, answer: null });
    } else if (message.role === "assistant") {
      const last = turns.at(-1);
      const mine = known.get(message.id);
      const isOpen = last && !last.answer;
      const turn = isOpen ? last : { id: message.id, question: null, answer: null };
      if (!isOpen) turns.push(turn);
      turns[turns.length - 1] = mine ?? { ...turn, answer: Answer.of(message) };
    }
  }
  return turns;
}
