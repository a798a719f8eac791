import type { TextFinding } from "./openapi.ts";

/** A part of a request that the service does not take. */
export interface Issue {
  /** Where it is, such as `["settings", "topK"]`. */
  path: (string | number)[];
  message: string;
  code?: string;
}

/** What an `ArchwrightError` knows beside its message. */
export interface ErrorFacts {
  code?: string | undefined;
  issues?: Issue[] | undefined;
  findings?: TextFinding[] | undefined;
  retryAfter?: number | undefined;
  runId?: string | undefined;
  version?: string | undefined;
  cause?: unknown;
}

/** A request that was refused or not answered. `message` is a sentence for people. */
export class ArchwrightError extends Error {
  override readonly name = "ArchwrightError";
  /** The HTTP status; 0 where there was no answer, or where a stream told the error. */
  readonly status: number;
  /** For programs: the service's own, or one that stands for the status. */
  readonly code: string;
  /** What is wrong with the request, part by part. */
  readonly issues: Issue[];
  /** What is wrong with a prompt or template that was not taken. */
  readonly findings: TextFinding[];
  /** Seconds after which to ask again. */
  readonly retryAfter: number | undefined;
  /** With 409 the run that goes on; with a stream that broke off for good, the run it read. */
  runId: string | undefined;
  /** With 412: the version that counts now. */
  readonly version: string | undefined;

  constructor(status: number, message: string, facts: ErrorFacts = {}) {
    super(message, { cause: facts.cause });
    this.status = status;
    this.code = facts.code ?? codeOf(status);
    this.issues = facts.issues ?? [];
    this.findings = facts.findings ?? [];
    this.retryAfter = facts.retryAfter;
    this.runId = facts.runId;
    this.version = facts.version;
  }
}

/** The error for an answer with a status of 400 or more, whoever sent it. */
export function refused(
  status: number,
  header: (name: string) => string | null,
  text: string,
): ArchwrightError {
  const facts = { retryAfter: seconds(header("Retry-After")), version: unquoted(header("ETag")) };
  const body = parsed(text);
  if (!isRecord(body)) return new ArchwrightError(status, plain(status, text), facts);
  const issues = issuesOf(body);
  return new ArchwrightError(status, told(body) ?? sentences(issues) ?? sentence(status), {
    ...facts,
    issues,
    code: string(body["error"]),
    findings: Array.isArray(body["findings"]) ? (body["findings"] as TextFinding[]) : [],
    runId: string(body["runId"]) ?? string(body["run_id"]),
  });
}

/** The error for a request that got no answer. */
export function unreachable(cause?: unknown): ArchwrightError {
  const message = "The service does not answer. Check the connection, and try again.";
  return new ArchwrightError(0, message, { code: "unreachable", cause });
}

/** The error for an answer that is not the service's, such as that of a proxy. */
export function unexpected(status: number): ArchwrightError {
  const message = "What answers is not Archwright. Check the address, and what lies in between.";
  return new ArchwrightError(status, message, { code: "unexpected_answer" });
}

/**
 * A sentence for whatever was thrown, or for the `error` event of any stream: never
 * `[object Object]`.
 */
export function readable(value: unknown): string {
  if (typeof value === "string" && value.trim()) return value;
  if (value instanceof Error && value.message) return value.message;
  if (!isRecord(value)) return UNKNOWN;
  if (isRecord(value["data"])) return readable(value["data"]);
  return told(value) ?? sentences(issuesOf(value)) ?? UNKNOWN;
}

/** The `error` event of any stream as an error that can be thrown. */
export function failure(event: { data: unknown; runId?: string | undefined }): ArchwrightError {
  const data = isRecord(event.data) ? event.data : {};
  const code = data["type"] === "error" ? data["message"] : data["code"];
  return new ArchwrightError(0, readable(data), {
    code: string(code) ?? "failed",
    runId: event.runId,
  });
}

const UNKNOWN = "Something went wrong. Try again.";

/** The sentence of a body or of an event. Where both are there, `message` may be a code. */
function told(body: Record<string, unknown>): string | undefined {
  const { detail, message, error } = body;
  return string(detail) ?? string(message) ?? string(error);
}

function issuesOf(body: Record<string, unknown>): Issue[] {
  const { detail, error } = body;
  const list = Array.isArray(detail) ? detail : isRecord(error) ? error["issues"] : undefined;
  return Array.isArray(list) ? list.filter(isRecord).map(issue) : [];
}

function issue(entry: Record<string, unknown>): Issue {
  const code = string(entry["code"]) ?? string(entry["type"]);
  const place = entry["path"] ?? entry["loc"];
  const path = (Array.isArray(place) ? place : []) as (string | number)[];
  return {
    path: "loc" in entry && IN_REQUEST.has(path[0]!) ? path.slice(1) : path,
    message: (string(entry["message"]) ?? string(entry["msg"]) ?? UNKNOWN)
      // What Pydantic puts before the sentence of a rule of the service's own.
      .replace(/^Value error, /, ""),
    ...(code && { code }),
  };
}

const IN_REQUEST = new Set<string | number>(["body", "query", "path", "header"]);

function sentences(issues: Issue[]): string | undefined {
  const each = issues.map(({ path, message }) => {
    const whole = /[.!?…]$/.test(message) ? message : `${message}.`;
    return path.length ? `${path.join(".")}: ${whole}` : whole;
  });
  return each.length ? each.join(" ") : undefined;
}

/** What a text says that is no JSON object: itself, if it is short and not a page. */
function plain(status: number, text: string): string {
  const line = text.trim();
  const isSentence = line.length > 0 && line.length <= 300 && !/^[<{["]/.test(line);
  return isSentence ? line : sentence(status);
}

function sentence(status: number): string {
  const known = SENTENCES[status];
  if (known) return known;
  if (status >= 500) return `The service failed (${status}). Try again in a moment.`;
  return `The service does not take this request (${status}).`;
}

const AWAY = "The service is away at the moment. Try again in a few seconds.";
const SENTENCES: Record<number, string> = {
  401: "Sign in with a key or token that is valid.",
  403: "You may not do this.",
  404: "There is no such thing, or you may not see it.",
  409: "Something else is going on there. Try again when it has ended.",
  410: "This is no longer kept.",
  412: "It was changed meanwhile. Read it again.",
  413: "This is too large.",
  429: "That was too much in a short time. Wait, and try again.",
  502: AWAY,
  503: AWAY,
  504: AWAY,
};

function codeOf(status: number): string {
  return CODES[status] ?? (status >= 500 ? "internal_error" : "refused");
}

const CODES: Record<number, string> = {
  400: "bad_request",
  401: "unauthorized",
  403: "forbidden",
  404: "not_found",
  409: "conflict",
  410: "gone",
  412: "changed",
  413: "too_large",
  415: "unsupported_document",
  422: "invalid",
  428: "precondition_required",
  429: "rate_limited",
  502: "unavailable",
  503: "unavailable",
  504: "unavailable",
};

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Seconds of `Retry-After`, which may also be a date. */
function seconds(value: string | null): number | undefined {
  if (!value) return undefined;
  const after = /^\d+$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return Number.isFinite(after) ? Math.max(0, Math.ceil(after)) : undefined;
}

function unquoted(etag: string | null): string | undefined {
  return etag?.match(/^(?:W\/)?"(.*)"$/)?.[1];
}

function string(value: unknown): string | undefined {
  return typeof value === "string" && value.trim() ? value : undefined;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
