import assert from "node:assert/strict";
import { test } from "node:test";
import { hunksOf, type DiffLine } from "../src/diff/lines.ts";
import { pairsOf } from "../src/diff/pairs.ts";

const rows = (before: string, after: string): string[] =>
  hunksOf(before, after).flatMap(({ lines }) =>
    pairsOf(lines).map((pair) => `${shown(pair.before, "before")} | ${shown(pair.after, "after")}`),
  );
const shown = (line: DiffLine | null, side: "before" | "after"): string =>
  line ? `${line[side]} ${line.pieces.map(({ text, isChanged }) => (isChanged ? `<${text}>` : text)).join("")}` : "-";

test("each change stands opposite what it replaces", () => {
  assert.deepEqual(rows("a\nThe old word\nc\nd\n", "a\nThe new word\nc\nx\nd"), [
    "1 a | 1 a",
    "2 The <old> word | 2 The <new> word",
    "3 c | 3 c",
    "- | 4 x",
    "4 d | 5 d",
  ]);
  assert.deepEqual(rows("a\nb\nc", "a\nx\ny\nc"), ["1 a | 1 a", "2 b | 2 x", "- | 3 y", "3 c | 4 c"]);
  assert.deepEqual(rows("a\nb\nc", "c"), ["1 a | -", "2 b | -", "3 c | 1 c"]);
  assert.deepEqual(rows("", "a"), ["- | 1 a"]);
});

test("no line is lost, and none comes twice, whatever the texts are", () => {
  const random = (): string[] =>
    Array.from({ length: Math.floor(Math.random() * 12) }, () => "abc"[Math.floor(Math.random() * 3)]!);
  for (let round = 0; round < 300; round++) {
    const [before, after] = [random(), random()];
    const hunks = hunksOf(before.join("\n"), after.join("\n"));
    for (const { lines } of hunks) {
      const pairs = pairsOf(lines);
      assert.deepEqual(
        pairs.flatMap((pair) => pair.before ?? []),
        lines.filter(({ kind }) => kind !== "added"),
      );
      assert.deepEqual(
        pairs.flatMap((pair) => pair.after ?? []),
        lines.filter(({ kind }) => kind !== "removed"),
      );
    }
  }
});
