import { ArchwrightError, createClient, readable, type Credentials, type Me } from "archwright-client";

const STORED = "archwright.credentials";

/** Keeps the credentials of this tab, and asks for others where the service does not take them.
 *
 * They are sent as a header and kept in the session's storage, in that of the device only if the
 * person wants so; they are never part of an address or of the document.
 */
class Session {
  /** The caller; null until they are known. */
  me = $state.raw<Me | null>(null);

  /** Whether the service waits for credentials. */
  isAsking = $state(false);

  #credentials = $state.raw(read());
  #waiting: PromiseWithResolvers<void> | null = null;

  /** Whether there are credentials that could be given up. */
  readonly isSignedIn = $derived(this.#credentials !== undefined);

  /** Whether the caller may do what only admins may. */
  readonly isAdmin = $derived(this.me?.role === "admin");

  /** What the client sends. */
  readonly credentials = (): Credentials | undefined => this.#credentials;

  /** `fetch` that waits for better credentials where the service refuses these, and asks again, so
   * that nothing that was typed is lost. */
  readonly fetch: typeof fetch = async (input, init) => {
    let signal = init?.signal ?? null;
    for (;;) {
      const used = this.#credentials;
      const answer = await fetch(input, { ...init, signal, headers: signed(init?.headers, used) });
      if (!(await isRefused(answer, used))) return answer;
      await answer.body?.cancel();
      if (used === this.#credentials) await this.ask();
      // How long a person looks for a key is not the service's delay.
      if (signal?.aborted && isTimeout(signal.reason)) signal = null;
    }
  };

  /** Find out who the caller is, asking for credentials if it takes some.
   *
   * @throws {ArchwrightError} where the service does not answer.
   */
  async open(): Promise<void> {
    this.me = await createClient({ fetch: this.fetch }).me();
  }

  /** Ask for other credentials, and wait until they are there. */
  ask(): Promise<void> {
    this.isAsking = true;
    this.#waiting ??= Promise.withResolvers<void>();
    return this.#waiting.promise;
  }

  /** Try credentials, and keep them if the service takes them; returns what is wrong with them, or
   * null. */
  async signIn(credentials: Credentials, remember: boolean): Promise<string | null> {
    let me: Me;
    try {
      me = await createClient({ credentials }).me();
    } catch (error) {
      const isWrong = error instanceof ArchwrightError && error.status === 401;
      return isWrong ? "The service does not take this. Copy all of it, and try again." : readable(error);
    }
    forget();
    (remember ? localStorage : sessionStorage).setItem(STORED, JSON.stringify(credentials));
    // What is on the page, and what waits to be sent, is another person's.
    if (this.me && this.me.id !== me.id) {
      // No view asks this one whether to stay.
      addEventListener("beforeunload", (event) => event.stopImmediatePropagation(), { capture: true });
      location.reload();
      return null;
    }
    this.#credentials = credentials;
    this.me = me;
    this.isAsking = false;
    this.#waiting?.resolve();
    this.#waiting = null;
    return null;
  }

  /** Forget the credentials, and all that is on the page with them. */
  signOut(): void {
    forget();
    location.hash = "#/";
    location.reload();
  }
}

/** The session of this page. */
export const session = new Session();

/** The drafting API answers 403 to strangers too, as it documents. */
async function isRefused(answer: Response, used: Credentials | undefined): Promise<boolean> {
  if (answer.status !== 403) return answer.status === 401;
  if (!new URL(answer.url).pathname.startsWith("/api/v1/")) return false;
  return (await fetch("/me", { headers: signed(undefined, used) })).status === 401;
}

function signed(given: HeadersInit | undefined, credentials: Credentials | undefined): Headers {
  const headers = new Headers(given);
  // Those that the request was made with may be of the other kind, and refused by now.
  for (const name of ["X-API-Key", "Authorization"]) headers.delete(name);
  if (credentials && "apiKey" in credentials) headers.set("X-API-Key", credentials.apiKey);
  else if (credentials) headers.set("Authorization", `Bearer ${credentials.token}`);
  return headers;
}

function isTimeout(reason: unknown): boolean {
  return reason instanceof DOMException && reason.name === "TimeoutError";
}

function read(): Credentials | undefined {
  const text = sessionStorage.getItem(STORED) ?? localStorage.getItem(STORED);
  try {
    return text === null ? undefined : (JSON.parse(text) as Credentials);
  } catch {
    forget();
    return undefined;
  }
}

function forget(): void {
  sessionStorage.removeItem(STORED);
  localStorage.removeItem(STORED);
}
