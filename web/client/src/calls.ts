import { ArchwrightError, unreachable } from "./errors.ts";
import type { CallOptions, Connection } from "./connection.ts";
import type { paths } from "./openapi.ts";

type Method = "get" | "post" | "put" | "patch" | "delete";

/** The paths of the service that take a method. */
type PathWith<M extends Method> = {
  [P in keyof paths]: paths[P][M] extends { responses: unknown } ? P : never;
}[keyof paths];

type Json<R> = R extends { content: { "application/json": infer J } } ? J : undefined;
type Answer<O> = O extends { responses: infer R }
  ? { [S in keyof R & (200 | 201 | 202 | 204)]: Json<R[S]> }[keyof R & (200 | 201 | 202 | 204)]
  : never;

type InPath<O> = O extends { parameters: { path: infer X } } ? { path: X } : { path?: never };
type InQuery<O> = O extends { parameters: { query?: infer X } }
  ? { query?: { [K in keyof X]?: X[K] | undefined } | undefined }
  : { query?: never };
type InBody<O> = O extends { requestBody: { content: { "application/json": infer X } } }
  ? { body: X }
  : { body?: never };

type Parts<O> = InPath<O> &
  InQuery<O> &
  InBody<O> & { headers?: Record<string, string> | undefined; signal?: AbortSignal | undefined };

/** Sends a request to a path of the service's description, and gives the JSON of the answer. */
export type Call = <M extends Method, P extends PathWith<M>>(
  method: M,
  path: P,
  parts: Parts<paths[P][M]>,
) => Promise<Answer<paths[P][M]>>;

/** One page of a list: at most `limit` entries (200), older than `before` (an ISO time). */
export interface Page extends CallOptions {
  limit?: number | undefined;
  before?: string | undefined;
}

/** The query of a page. */
export function paged({ limit, before }: Page): { limit?: number; before?: string } {
  return { ...(limit && { limit }), ...(before && { before }) };
}

// A plain call is answered soon or never; a provider's trial may ask a slow model.
const TIMEOUT_MS = 120_000;

/** A typed caller over a connection. */
export function caller(connection: Connection): Call {
  return async (method, path, parts: Loose) => {
    const { body, headers, signal } = parts;
    const timeout = AbortSignal.timeout(TIMEOUT_MS);
    const json = body !== undefined && { "Content-Type": "application/json" };
    try {
      return (await connection.json(filled(path, parts.path) + search(parts.query), {
        method: method.toUpperCase(),
        headers: { Accept: "application/json", ...json, ...headers },
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
      })) as never;
    } catch (error) {
      throw error === timeout.reason ? unreachable(error) : error;
    }
  };
}

interface Loose {
  path?: unknown;
  query?: unknown;
  body?: unknown;
  headers?: Record<string, string> | undefined;
  signal?: AbortSignal | undefined;
}

/** The path with its parameters in place. */
export function filled(path: string, parameters: unknown): string {
  const values = (parameters ?? {}) as Record<string, unknown>;
  return path.replace(/\{(\w+)\}/g, (_, name: string) => segments(name, String(values[name] ?? "")));
}

/** The path of a text has slashes of its own. No part may lead to another route. */
function segments(name: string, value: string): string {
  const parts = name === "path" ? value.split("/") : [value];
  if (parts.some((part) => /^\.{0,2}$/.test(part))) throw notFound(name);
  return parts.map(encodeURIComponent).join("/");
}

function notFound(name: string): ArchwrightError {
  return new ArchwrightError(404, `There is no such thing: ${name} is empty or no name.`);
}

function search(query: unknown): string {
  const given = Object.entries(query ?? {}).filter(([, value]) => value != null && value !== "");
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return text && `?${text}`;
}
