import { untrack } from "svelte";

/** Where the person is: the path and query behind the hash, as in `#/projects/1/chat?cite=2`. */
class Place {
  #hash = $state(location.hash);

  constructor() {
    addEventListener("hashchange", () => (this.#hash = location.hash));
  }

  /** The path, always beginning with a slash. */
  readonly path = $derived(this.#hash.slice(1).split("?")[0] || "/");

  /** What follows the question mark; a new object after each change. */
  readonly query = $derived(new URLSearchParams(this.#hash.split("?")[1] ?? ""));

  /** Go elsewhere; with `replace`, the present place is forgotten by the Back button. */
  go(path: string, { replace = false }: { replace?: boolean } = {}): void {
    const hash = `#${path}`;
    if (untrack(() => this.#hash) === hash) return;
    if (replace) history.replaceState(null, "", hash);
    else history.pushState(null, "", hash);
    this.#hash = hash;
  }

  /** Set or, with null, take away one key of the query, without a new entry in the history. */
  note(key: string, value: string | null): void {
    const query = new URLSearchParams(untrack(() => this.query));
    if (value === null) query.delete(key);
    else query.set(key, value);
    const text = query.toString();
    this.go(untrack(() => this.path) + (text && `?${text}`), { replace: true });
  }
}

/** The one place of this page. */
export const place = new Place();

/** The address of a path whose parts may hold any character: `link("projects", id, "chat")`. */
export function link(...parts: string[]): string {
  return `#/${parts.map(encodeURIComponent).join("/")}`;
}

/** The parameters of `path` where it has the form of `pattern`, else null.
 *
 * A pattern is written as `/projects/:project/chat/:conversation?`; `*` at its end takes the rest.
 */
export function match(pattern: string, path: string): Record<string, string> | null {
  const wanted = pattern.split("/").slice(1);
  const given = path.split("/").slice(1).filter((part, at) => part !== "" || at === 0);
  const found: Record<string, string> = {};
  for (const [at, part] of wanted.entries()) {
    if (part === "*") {
      found["rest"] = given.slice(at).map(decoded).join("/");
      return found;
    }
    const value = decoded(given[at] ?? "");
    if (!part.startsWith(":")) {
      if (part !== value) return null;
    } else if (value) found[part.replace(/[:?]/g, "")] = value;
    else if (!part.endsWith("?")) return null;
  }
  return given.length <= wanted.length ? found : null;
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
