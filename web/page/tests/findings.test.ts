import assert from "node:assert/strict";
import { test } from "node:test";
import { findingsOf, moved, placed, summary } from "../src/views/drafting/findings.ts";

const found = findingsOf([
  { code: "open_placeholder", message: "Line 4: Open.", line: 4 },
  { code: "missing_heading", message: "Missing.", line: 2 },
  { code: "cut_to_fit", message: "Cut." },
]);
const TEXT = "a\nb\nc\nd\ne";
const places = (after: string, before = TEXT) =>
  moved(found, before, after).map(({ line, isSettled }) => (isSettled ? `${line} settled` : line));

test("findings stand in the order of their lines, those about the whole first", () => {
  assert.deepEqual(
    found,
    [
      { id: 0, code: "cut_to_fit", message: "Cut.", line: null, isSettled: false },
      { id: 1, code: "missing_heading", message: "Missing.", line: 2, isSettled: false },
      { id: 2, code: "open_placeholder", message: "Open.", line: 4, isSettled: false },
    ],
  );
});

test("a finding goes with its line, and is settled once the line is changed", () => {
  assert.deepEqual(places(TEXT), [null, 2, 4]);
  assert.deepEqual(places("a\nb\nc\nx\nd\ne"), [null, 2, 5]);
  assert.deepEqual(places("a\nb\nd\ne"), [null, 2, 3]);
  assert.deepEqual(places("new\na\nb\nc\nd\ne"), [null, 3, 5]);
  assert.deepEqual(places("a\nb\nc\nD\ne"), [null, 2, "4 settled"]);
  assert.deepEqual(places("a\nB\nc\nD\ne"), [null, "2 settled", "4 settled"]);
  assert.deepEqual(places("a\ne"), [null, "1 settled", "1 settled"]);
  assert.deepEqual(places(""), [null, "1 settled", "1 settled"]);
  assert.deepEqual(places("a\nb\nc\nd\ne\nf"), [null, 2, 4]);
});

test("after any edits a line that nobody touched keeps its finding", () => {
  const random = (most: number): number => Math.floor(Math.random() * most);
  for (let round = 0; round < 200; round++) {
    let text = Array.from({ length: 30 }, (_, at) => `line ${at}`).join("\n");
    const line = 1 + random(30);
    const words = text.split("\n")[line - 1]!;
    let findings = findingsOf([{ code: "x", message: "y", line }]);
    for (let edit = 0; edit < 10; edit++) {
      const lines = text.split("\n");
      const kept = lines.indexOf(words);
      let at = random(lines.length);
      if (at === kept) at = kept ? 0 : lines.length;
      if (random(2) || at >= lines.length) lines.splice(at, 0, `new ${round} ${edit}`);
      else lines.splice(at, 1);
      const after = lines.join("\n");
      findings = moved(findings, text, after);
      text = after;
    }
    assert.deepEqual(
      findings.map((finding) => [text.split("\n")[finding.line! - 1], finding.isSettled]),
      [[words, false]],
    );
  }
});

test("notes stand at their lines, or below the note before", () => {
  assert.deepEqual(placed([], [], 8), []);
  assert.deepEqual(placed([0, 10, 200, 210], [50, 20, 20, 20], 8), [0, 58, 200, 228]);
});

test("how many there are is said in words", () => {
  const [one, two] = [found[0]!, { ...found[1]!, isSettled: true }];
  assert.deepEqual([[one], [two], [one, two], [one, two, two]].map(summary), [
    "1 finding",
    "1 finding, all settled",
    "2 findings, 1 of them settled",
    "3 findings, 2 of them settled",
  ]);
});
