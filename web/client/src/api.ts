import { caller, filled, type Call } from "./calls.ts";
import { Connection, type CallOptions, type ClientOptions } from "./connection.ts";
import { conversations } from "./conversations.ts";
import { documents } from "./documents.ts";
import { drafting } from "./drafting.ts";
import type { ChatEvent, DraftEvent } from "./events.ts";
import type { About, Health, Question, RunEntry, StreamRequest } from "./openapi.ts";
import { accounts, keys, people, providers } from "./operating.ts";
import { Patience, type Waiting } from "./patience.ts";
import { grants, projects } from "./projects.ts";
import { eventStream, type EventStream, type Origin, type StreamOptions } from "./streams.ts";
import { texts } from "./texts.ts";

export type Mode = NonNullable<Question["mode"]>;

export interface AskOptions extends StreamOptions {
  /** The idempotency key, by default a new one: the same key never asks a second time. */
  key?: string | undefined;
}

/** The service at one address, with one caller's credentials. */
export type Api = ReturnType<typeof createClient>;

/** A client of the service. */
export function createClient(options: ClientOptions = {}) {
  const connection = new Connection(options);
  const call = caller(connection);
  return {
    ...runs(connection, call),
    ...people(call),
    ...accounts(call),
    conversations: conversations(call),
    documents: documents(connection, call),
    drafting: drafting(call),
    grants: grants(call),
    keys: keys(call),
    projects: projects(call),
    providers: providers(call),

    /** The texts that count in all projects, or those of one. */
    texts: (projectId?: string) => texts(call, projectId),

    /** What the service is, and its version. */
    about: ({ signal }: CallOptions = {}): Promise<About> => call("get", "/", { signal }),

    /** How its parts are; one that is down altogether answers with an error. */
    health: ({ signal }: CallOptions = {}): Promise<Health> =>
      call("get", "/api/v1/system/health", { signal }),
  };
}

/** A new id, for a conversation of the drafting API or as a key. */
export function newId(): string {
  // `crypto.randomUUID` is missing on a page that came over plain HTTP from another machine.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}

const runPath = (id: string): string => filled("/runs/{id}/stream", { id });

/** What begins, follows and stops runs. */
function runs(connection: Connection, call: Call) {
  const begin = (path: () => string, body: unknown, key = newId()): Origin => ({
    post: { path, body, key },
    pathOf: runPath,
  });
  return {
    /**
     * Ask about a project's documents.
     *
     * The last event is `done` or `error`; but after an `error` with `nextRunId` that run's events
     * follow, and its answer begins anew. Leaving the loop does not stop the run: `stop` does.
     *
     * @throws {ArchwrightError} where the service refuses, or does not answer for about a minute;
     *   409 where the conversation still answers: `runId` is what to follow or stop.
     */
    chatStream(
      projectId: string,
      message: string,
      conversationId?: string | null,
      modelId?: string | null,
      mode?: Mode | null,
      { key, ...options }: AskOptions = {},
    ): EventStream<ChatEvent> {
      const body: Question = { message };
      if (conversationId) body.conversationId = conversationId;
      if (modelId) body.modelId = modelId;
      if (mode) body.mode = mode;
      const origin = begin(() => filled("/chat/projects/{id}", { id: projectId }), body, key);
      return eventStream<ChatEvent>(connection, origin, options);
    },

    /** Draft a document, or ask in the drafting API; otherwise as `chatStream`. */
    draftStream(
      request: StreamRequest,
      { key, ...options }: AskOptions = {},
    ): EventStream<DraftEvent> {
      const origin = begin(() => "/api/v1/chat/stream", request, key);
      return eventStream<DraftEvent>(connection, origin, options);
    },

    /** The events of an answer from `after` on, and then live: for a page that is loaded again. */
    followRun(runId: string, after = 0, options: StreamOptions = {}): EventStream<ChatEvent> {
      return eventStream<ChatEvent>(connection, { runId, after, pathOf: runPath }, options);
    },

    /** The same for a draft. */
    followDraft(runId: string, after = 0, options: StreamOptions = {}): EventStream<DraftEvent> {
      return eventStream<DraftEvent>(connection, { runId, after, pathOf: runPath }, options);
    },

    /** How a run stands. */
    async run(runId: string, { signal }: CallOptions = {}): Promise<RunEntry> {
      return (await call("get", "/runs/{run_id}", { path: { run_id: runId }, signal })).run;
    },

    /**
     * End a run, whose id is its `messageId`; its stream then ends with `done`. It is asked again
     * while the service is away, and a run that has ended stays as it is.
     */
    async stop(messageId: string, waiting: Waiting = {}): Promise<RunEntry> {
      const patience = new Patience(connection.patience, waiting);
      const parts = { path: { run_id: messageId }, signal: waiting.signal };
      for (;;) {
        try {
          return (await call("post", "/runs/{run_id}/stop", parts)).run;
        } catch (error) {
          await patience.wait(error);
        }
      }
    },
  };
}
