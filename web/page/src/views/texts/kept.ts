/** An edit that is not saved yet: its text, and the version that it was made over. */
export interface KeptEdit {
  content: string;
  base: string | null;
}

/** Unsaved edits of one person in one scope, kept by this tab until they are saved or discarded. */
export class KeptEdits {
  readonly #prefix: string;

  constructor(userId: string, projectId: string | undefined) {
    this.#prefix = `archwright.edit ${userId} ${projectId ?? "service"} `;
  }

  /** The edit of a text; null where there is none. */
  get(path: string): KeptEdit | null {
    const text = sessionStorage.getItem(this.#prefix + path);
    try {
      return text === null ? null : (JSON.parse(text) as KeptEdit);
    } catch {
      return null;
    }
  }

  /** Keep an edit; says whether there was room for it. */
  put(path: string, edit: KeptEdit): boolean {
    try {
      sessionStorage.setItem(this.#prefix + path, JSON.stringify(edit));
      return true;
    } catch {
      return false;
    }
  }

  drop(path: string): void {
    sessionStorage.removeItem(this.#prefix + path);
  }

  /** The unsaved texts, by path. */
  all(): Record<string, string> {
    const paths = Object.keys(sessionStorage)
      .filter((key) => key.startsWith(this.#prefix))
      .map((key) => key.slice(this.#prefix.length));
    return Object.fromEntries(paths.map((path) => [path, this.get(path)?.content ?? ""]));
  }
}
