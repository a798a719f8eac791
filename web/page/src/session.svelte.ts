const STORED = "archwright.credential";

/** What a person signs in with: an API key, or a bearer token. */
export interface Credential {
  kind: "key" | "token";
  value: string;
}

/** Who the caller is, as `GET /me` says. */
export interface Me {
  id: string;
  name: string;
  email: string | null;
  role: "admin" | null;
  groups: { id: string; name: string }[];
}

/** Keeps the credential of this tab, and asks for another one where the service wants it.
 *
 * It is sent as a header and kept in the session's storage, in that of the device only if the
 * person wants so; it is never part of an address or of the document.
 */
class Session {
  /** The caller; null until they are known. */
  me = $state<Me | null>(null);

  /** Whether the service waits for a credential. */
  isAsking = $state(false);

  /** Whether somebody was signed in before the service asked again. */
  wasKnown = $derived(this.me !== null);

  #credential: Credential | null = read();
  #waiting: PromiseWithResolvers<void> | null = null;

  /** Whether there is a credential that could be given up. */
  hasCredential = $state(this.#credential !== null);

  /** `fetch` with the credential. Where the service refuses it, it waits for a better one and
   * asks again, so that nothing that was typed is lost. */
  readonly fetch: typeof fetch = async (input, init) => {
    let signal = init?.signal ?? null;
    for (;;) {
      const request = new Request(input instanceof Request ? input.clone() : input, { ...init, signal });
      const used = this.#credential;
      sign(request.headers, used);
      const answer = await fetch(request);
      if (!(await this.#isRefused(answer))) return answer;
      await answer.body?.cancel();
      if (used === this.#credential) await this.#ask();
      // How long a person looks for a key is not the service's delay.
      if (signal?.aborted && isTimeout(signal.reason)) signal = null;
    }
  };

  /** Try a credential, and keep it if the service takes it; returns what is wrong with it, if
   * anything. */
  async signIn(credential: Credential, remember: boolean): Promise<string | null> {
    const headers = new Headers();
    try {
      sign(headers, credential);
    } catch {
      return "A key or token is made of plain letters, digits and signs. Copy it again.";
    }
    let answer: Response;
    try {
      answer = await fetch("/me", { headers });
    } catch {
      return "The service cannot be reached. Look whether it runs, then try again.";
    }
    if (answer.status === 401) return "The service does not take this. Copy the whole key or token again.";
    if (!answer.ok) return `The service answers with status ${answer.status}. Try again in a moment.`;
    const { user } = (await answer.json()) as { user: Me };
    this.#keep(credential, remember);
    // What is on the page is another person's.
    if (this.me && this.me.id !== user.id) location.reload();
    this.me = user;
    this.isAsking = false;
    this.#waiting?.resolve();
    this.#waiting = null;
    return null;
  }

  /** Forget the credential, and all that is on the page with it. */
  signOut(): void {
    clear();
    location.hash = "#/";
    location.reload();
  }

  /** Find out who the caller is, asking for a credential if it takes one. */
  async open(): Promise<void> {
    const answer = await this.fetch("/me");
    if (!answer.ok) throw new Error(`The service answers with status ${answer.status}.`);
    this.me = ((await answer.json()) as { user: Me }).user;
  }

  /** Whether the person who calls may do what only admins may. */
  readonly isAdmin = $derived(this.me?.role === "admin");

  #ask(): Promise<void> {
    this.isAsking = true;
    this.#waiting ??= Promise.withResolvers<void>();
    return this.#waiting.promise;
  }

  /** The drafting API answers 403 to strangers too, as it documents. */
  async #isRefused(answer: Response): Promise<boolean> {
    if (answer.status !== 403) return answer.status === 401;
    if (!new URL(answer.url).pathname.startsWith("/api/v1/")) return false;
    const headers = new Headers();
    sign(headers, this.#credential);
    return (await fetch("/me", { headers })).status === 401;
  }

  #keep(credential: Credential, remember: boolean): void {
    clear();
    (remember ? localStorage : sessionStorage).setItem(STORED, JSON.stringify(credential));
    this.#credential = credential;
    this.hasCredential = true;
  }
}

/** The session of this page. */
export const session = new Session();

function isTimeout(reason: unknown): boolean {
  return reason instanceof DOMException && reason.name === "TimeoutError";
}

function sign(headers: Headers, credential: Credential | null): void {
  if (credential?.kind === "key") headers.set("X-API-Key", credential.value);
  if (credential?.kind === "token") headers.set("Authorization", `Bearer ${credential.value}`);
}

function read(): Credential | null {
  const text = sessionStorage.getItem(STORED) ?? localStorage.getItem(STORED);
  try {
    return text === null ? null : (JSON.parse(text) as Credential);
  } catch {
    clear();
    return null;
  }
}

function clear(): void {
  sessionStorage.removeItem(STORED);
  localStorage.removeItem(STORED);
}
