const STORED = "archwright.theme";

/** Light, dark, or as the device has it. */
export type Choice = "light" | "dark" | "device";

class Theme {
  #choice = $state<Choice>(read());

  constructor() {
    this.#show();
  }

  /** What the person has chosen. */
  get choice(): Choice {
    return this.#choice;
  }

  set choice(choice: Choice) {
    this.#choice = choice;
    if (choice === "device") localStorage.removeItem(STORED);
    else localStorage.setItem(STORED, choice);
    this.#show();
  }

  #show(): void {
    if (this.#choice === "device") delete document.documentElement.dataset["theme"];
    else document.documentElement.dataset["theme"] = this.#choice;
  }
}

/** The colours of this page. */
export const theme = new Theme();

function read(): Choice {
  const stored = localStorage.getItem(STORED);
  return stored === "light" || stored === "dark" ? stored : "device";
}
