/** What was announced last; shown by the layout in a region that screen readers read aloud. */
export const announced = $state({ text: "" });

/** Have screen readers say a sentence, once what they say now is said. */
export function announce(sentence: string): void {
  // The same sentence twice is two announcements.
  announced.text = announced.text === sentence ? `${sentence}\u00a0` : sentence;
}
