const WAYS: Record<string, [number, number]> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

/** The element that an arrow key leads to from another one, as they lie on the screen. */
export function neighbour(all: HTMLElement[], from: Element | null, key: string): HTMLElement | null {
  const way = WAYS[key];
  if (!way || !from || !all.includes(from as HTMLElement)) return null;
  const here = middle(from);
  const ahead = all
    .map((one) => ({ one, at: middle(one) }))
    .map(({ one, at }) => ({ one, by: [at[0] - here[0], at[1] - here[1]] as const }))
    // A row ends where it ends; up and down lead to the nearest of the next row.
    .filter(({ by }) => (way[0] ? by[0] * way[0] > 1 && Math.abs(by[1]) < 1 : by[1] * way[1] > 1))
    .map(({ one, by }) => ({ one, far: way[0] ? Math.abs(by[0]) : Math.abs(by[1]) * 10_000 + Math.abs(by[0]) }));
  return ahead.sort((a, b) => a.far - b.far)[0]?.one ?? null;
}

function middle(element: Element): [number, number] {
  const box = element.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
}
