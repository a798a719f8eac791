import { ArchwrightError, refused, unexpected, unreachable } from "./errors.ts";
import { PATIENCE, type PatienceLimits } from "./patience.ts";

/** An API key, or a token (a JWT of the identity provider). Both are sent as a header only. */
export type Credentials = { apiKey: string } | { token: string };

/** Reads the credentials; called anew for each request, so that a token can be renewed. */
export type ReadCredentials = () =>
  | Credentials
  | undefined
  | Promise<Credentials | undefined>;

export interface ClientOptions {
  /** Where the service is, such as `http://127.0.0.1:8000`; by default the page's own origin. */
  address?: string | undefined;
  credentials?: Credentials | ReadCredentials | undefined;
  /** In place of the `fetch` of the browser or of Node. */
  fetch?: typeof fetch | undefined;
  patience?: Partial<PatienceLimits> | undefined;
}

/** What each request may be given. */
export interface CallOptions {
  /** Ends the request; its reason is thrown. */
  signal?: AbortSignal | undefined;
}

export interface Sent extends CallOptions {
  method: string;
  headers?: Record<string, string> | undefined;
  body?: string | FormData | undefined;
  cache?: RequestCache | undefined;
}

/** Sends requests to one service, with credentials. */
export class Connection {
  readonly #address: string;
  readonly #credentials: Credentials | ReadCredentials | undefined;
  readonly #fetch: typeof fetch;
  readonly patience: PatienceLimits;

  constructor(options: ClientOptions) {
    this.#address = (options.address ?? "").replace(/\/+$/, "");
    this.#credentials = options.credentials;
    this.#fetch = options.fetch ?? ((...args) => fetch(...args));
    this.patience = { ...PATIENCE, ...options.patience };
  }

  url(path: string): string {
    return this.#address + path;
  }

  /** The headers that say who is calling. */
  async identity(): Promise<Record<string, string>> {
    const given = this.#credentials;
    const credentials = typeof given === "function" ? await given() : given;
    if (!credentials) return {};
    if ("apiKey" in credentials) return { "X-API-Key": sendable(credentials.apiKey) };
    return { Authorization: `Bearer ${sendable(credentials.token)}` };
  }

  /**
   * The answer to a request, with a status below 300.
   *
   * @throws {ArchwrightError} where it was refused or not answered.
   */
  async send(path: string, { method, headers, body, cache, signal }: Sent): Promise<Response> {
    const all = { ...(await this.identity()), ...headers };
    const response = await answered(signal, () =>
      this.#fetch(this.url(path), {
        method,
        headers: all,
        ...(body !== undefined && { body }),
        ...(cache && { cache }),
        // Else the credentials would be sent to wherever the answer leads.
        redirect: "error",
        ...(signal && { signal }),
      }),
    );
    if (response.ok) return response;
    // Chromium takes "HTTP/1.1 2", where the connection broke, for a status.
    if (response.status < 100) throw unreachable("The answer broke off in its first line.");
    const text = await answered(signal, () => response.text());
    throw refused(response.status, (name) => response.headers.get(name), text);
  }

  /** The JSON of an answer; undefined where it has none. */
  async json(path: string, sent: Sent): Promise<unknown> {
    const response = await this.send(path, sent);
    const text = await answered(sent.signal, () => response.text());
    if (response.status === 204) return undefined;
    if (!text) throw unreachable("The answer broke off.");
    try {
      return JSON.parse(text);
    } catch {
      throw unexpected(response.status);
    }
  }
}

/** What `doing` gives. A failure is told as unreachable, but an abort as what it was. */
export async function answered<T>(
  signal: AbortSignal | undefined,
  doing: () => Promise<T>,
): Promise<T> {
  try {
    return await doing();
  } catch (error) {
    throw signal?.aborted ? signal.reason : unreachable(error);
  }
}

/** A secret that can be a header. The error of `fetch` would have it in its message. */
function sendable(secret: string): string {
  const trimmed = secret.trim();
  if (/^[\x21-\x7e]+$/.test(trimmed)) return trimmed;
  throw new ArchwrightError(401, "This is no key or token: it has characters that none has.");
}
