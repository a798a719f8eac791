import { readable, type ChatFailure, type FinishReason } from "archwright-client";

/** What went wrong, and what to do about it. */
export interface Failure {
  sentence: string;
  advice: string;
}

const ADVICE: Record<string, string> = {
  LLM_API_ERROR: "Try again, or choose another model. If it stays, have an admin test the provider.",
  LLM_CONNECTION_ERROR: "Try again in a moment, or choose another model.",
  RETRIEVAL_ERROR: "Try again in a moment.",
  WEB_SEARCH_ERROR: "Try again, or ask the documents only.",
  INTERNAL_ERROR: "Try again. If it stays, an admin finds the cause in the service's log.",
};

const ENDS: Record<FinishReason, string | undefined> = {
  stop: undefined,
  length: "The answer is cut off: it reached the longest length that the model may write.",
  content_filter: "The provider's content filter ended the answer.",
  stopped: "You stopped this answer. What was written until then is kept.",
};

/** What the `error` event of an answer says. */
export function told({ message: code, detail }: ChatFailure): Failure {
  const sentence = code === "LLM_API_ERROR" ? `The model's provider refused: ${detail}` : detail;
  return { sentence: whole(sentence), advice: unsaid(ADVICE[code] ?? "Try again.", sentence) };
}

/** What was thrown instead of an answer. */
export function thrown(error: unknown): Failure {
  const sentence = whole(readable(error));
  return { sentence, advice: unsaid("Try again.", sentence) };
}

/** What to say of how an answer ended; undefined where there is nothing to say. */
export function ending(reason: FinishReason): string | undefined {
  return ENDS[reason];
}

/** With a capital at its beginning and a stop at its end. */
export function whole(sentence: string): string {
  const text = sentence.trim();
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(first) ? first : `${first}.`;
}

function unsaid(advice: string, sentence: string): string {
  return /\b(try|ask|sign|wait|check)\b[^.]*\b(again|in|moment|connection)\b/i.test(sentence) ? "" : advice;
}
