import assert from "node:assert/strict";
import { test } from "node:test";
import { changesIn, hunksOf } from "../src/diff/lines.ts";
import { lineSpan, worstByLine } from "../src/editor/marks.ts";

const shown = (before: string, after: string): string[] =>
  hunksOf(before, after).flatMap(({ skipped, lines }) => [
    `@ ${skipped}`,
    ...lines.map(
      ({ kind, pieces }) =>
        ({ same: " ", removed: "-", added: "+" })[kind] +
        pieces.map(({ text, isChanged }) => (isChanged ? `[${text}]` : text)).join(""),
    ),
  ]);

test("a change stands between three equal lines, with its words marked", () => {
  const text = Array.from({ length: 30 }, (_, at) => `Line ${at + 1} of the text.`);
  const changed = text.with(9, "Line ten of the text.").with(27, "Line 28 of it.");
  assert.deepEqual(shown(text.join("\n"), changed.join("\n")), [
    "@ 6",
    ...[7, 8, 9].map((n) => ` Line ${n} of the text.`),
    "-Line [10] of the text.",
    "+Line [ten] of the text.",
    ...[11, 12, 13].map((n) => ` Line ${n} of the text.`),
    "@ 11",
    ...[25, 26, 27].map((n) => ` Line ${n} of the text.`),
    "-Line 28 of [the text].",
    "+Line 28 of [it].",
    ...[29, 30].map((n) => ` Line ${n} of the text.`),
  ]);
});

test("the end of the last line is no change, and nothing is something that was not there", () => {
  assert.deepEqual(shown("a\nb", "a\nb\n"), []);
  assert.deepEqual(shown("", "a\n\nb"), ["@ 0", "+a", "+", "+b"]);
  assert.deepEqual(changesIn(hunksOf("a\nb\n", "b\nc\nd\n")), { added: 2, removed: 1 });
});

test("lines that have little in common are shown as they are", () => {
  assert.deepEqual(shown("Ask the harbour office.", "Bring rope"), [
    "@ 0",
    "-Ask the harbour office.",
    "+Bring rope",
  ]);
});

test("texts that differ everywhere are given whole", () => {
  const random = (): string =>
    Array.from({ length: 8000 }, () => Math.random().toString(36)).join("\n");
  const [before, after] = [random(), random()];
  assert.deepEqual(changesIn(hunksOf(before, after)), { added: 8000, removed: 8000 });
});

test("a line is found in its text, and has the worst of its findings", () => {
  assert.deepEqual(lineSpan("one\ntwo\n\nfour", 2), [4, 7]);
  assert.deepEqual(lineSpan("one\ntwo\n\nfour", 3), [8, 8]);
  assert.deepEqual(lineSpan("one\ntwo", 9), [4, 7]);
  const found = (["warning", "error", "warning"] as const).map((severity) => ({
    line: 1,
    severity,
    message: "",
  }));
  assert.deepEqual([...worstByLine(found)], [[1, "error"]]);
});
