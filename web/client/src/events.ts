import type { CitationEntry, Document } from "./openapi.ts";

/** An event of a stream: `data` is what the service sent under the name `type`. */
export interface Told<Type extends string, Data> {
  type: Type;
  data: Data;
  /** The run, or the document, that tells it. */
  runId: string;
  /** Its number there: ascending, and what to give as `after` to read on behind it. */
  seq: number;
}

/** What was cut, not found, or not borne out; `line` where it was found in a draft. */
export interface Warning {
  code: string;
  message: string;
  line?: number;
}

export type FinishReason = "stop" | "length" | "content_filter" | "stopped";

/** A passage that the model was given: `[n]` in the text means the n-th of them. */
export interface SourceChunk {
  id: string;
  documentId: string | null;
  documentName: string;
  pageNumber: number | null;
  snippet: string;
  /** Of a page of the web. */
  url?: string;
}

export interface ChatDone {
  messageId: string;
  totalTokens: number;
  citations: CitationEntry[];
  finishReason: FinishReason;
  usage: { promptTokens: number; completionTokens: number; totalTokens: number };
  /** Milliseconds of each step, `null` where it did not happen. */
  timingsMs: Record<string, number | null>;
  promptVersion: string | null;
  templateVersion: string | null;
  warnings: Warning[];
}

export interface ChatFailure {
  type: "error";
  /** The code. */
  message: string;
  /** A sentence for people. */
  detail: string;
  /** The run that asks the turn again; its events follow, and the answer begins anew. */
  nextRunId?: string;
}

/** What an answer tells: `meta`, `sources`, any number of `text`, then `done` or `error`. */
export type ChatEvent =
  | Told<"meta", { conversationId: string; messageId: string; model: string }>
  | Told<"sources", { chunks: SourceChunk[] }>
  | Told<"text", { delta: string }>
  | Told<"done", ChatDone>
  | Told<"error", ChatFailure>;

export interface DraftDone {
  full_response: string;
  is_final: true;
  /** The document types that were used. */
  sources: string[];
  metadata: {
    template_used: string | null;
    run_id: string;
    conversation_id: string;
    message_id: string;
    model: string;
    finish_reason: FinishReason;
    template_version: string | null;
    prompt_version: string | null;
    usage: { prompt_tokens: number; completion_tokens: number; total_tokens: number };
    timings_ms: Record<string, number | null>;
    citations: CitationEntry[];
    warnings: Warning[];
  };
}

export interface DraftFailure {
  /** A sentence for people. */
  error: string;
  code: string;
  /** Whether asking again may help. */
  retry: boolean;
  /** The run that asks the turn again; its events follow, and the draft begins anew. */
  next_run_id?: string;
}

/** What a draft tells: any number of `message`, then `done` or `error`. */
export type DraftEvent =
  | Told<"message", { token: string; is_final: false }>
  | Told<"done", DraftDone>
  | Told<"error", DraftFailure>;

/** What a document tells while it is taken in; after `done` every passage can be found. */
export type DocumentEvent =
  /** `stage` is `reading`, `storing`, `embedding`, or `waiting`, whose numbers are seconds. */
  | Told<"progress", { stage: string; done: number; total: number }>
  | Told<"done", { document: Document }>
  | Told<"error", { message: string }>;
