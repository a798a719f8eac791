import assert from "node:assert/strict";
import { test } from "node:test";
import {
  causesOf, dependentsOf, listed, phasesOf, stepsOf, turnedStale, type State, type Step,
} from "../src/views/drafting/steps.ts";
import { progressOf } from "../src/views/drafting/progress.ts";

function step(type: string, state: State, needs: string[] = [], at: string | null = null): Step {
  return { type, title: `The ${type}`, phase: "own", path: `${type}.md`, needs, headings: [], state, at };
}

const EARLY = "2026-11-22T10:00:00.5Z";
const LATE = "2026-11-22T10:00:01Z";

test("steps join what a type is with where it stands", () => {
  const entry = { type: "A", phase: "first-steps", output_path: "docs/A.md", depends_on: [] };
  const types = [{ ...entry, title: "An A", required_headings: ["One"], version: "1" }];
  const documents = [
    { ...entry, status: "ready" as const, updated_at: null },
    { ...entry, type: "B", phase: "later", depends_on: ["A"], status: "missing" as const, updated_at: null },
  ];
  const steps = stepsOf(types, { project_id: "p", documents, next: "A" });
  assert.deepEqual(steps, [
    { type: "A", title: "An A", phase: "first-steps", path: "docs/A.md", needs: [], headings: ["One"], state: "ready", at: null },
    { type: "B", title: "B", phase: "later", path: "docs/A.md", needs: ["A"], headings: [], state: "missing", at: null },
  ]);
  assert.deepEqual(phasesOf(steps), [
    { name: "First steps", steps: [steps[0]] },
    { name: "Later", steps: [steps[1]] },
  ]);
});

test("a step tells what it waits for and what has changed since", () => {
  const a = step("A", "done", [], LATE);
  const b = step("B", "draft", [], LATE);
  const c = step("C", "missing", ["A", "B"]);
  const d = step("D", "stale", ["A", "B"], EARLY);
  const all = [a, b, c, d];
  assert.deepEqual(all.map((one) => causesOf(one, all).map(({ type }) => type)), [[], [], ["B"], ["A"]]);
  assert.deepEqual(dependentsOf(a, all), [c, d]);
  assert.deepEqual(turnedStale([a, b, c, { ...d, state: "done" }], all), [d]);
  assert.deepEqual(turnedStale(all, all), []);
});

test("titles are listed as in a sentence", () => {
  const titles = ["A", "B", "C", "D"].map((title) => ({ title }));
  assert.deepEqual([0, 1, 2, 3, 4].map((most) => listed(titles.slice(0, most))), [
    "", "A", "A and B", "A, B and C", "A, B and 2 more",
  ]);
});

test("progress is told by the headings that a document has to contain", () => {
  const headings = ["Why it exists", "Who it serves"];
  assert.deepEqual(progressOf("", headings), { lines: 0, words: 0, heading: null, at: 0 });
  assert.deepEqual(progressOf("# T\n\n## 1. Why it EXISTS:\nIt is", headings), {
    lines: 4, words: 9, heading: "Why it exists", at: 1,
  });
  assert.deepEqual(progressOf("## Why it exists\n\n## Who it serves\n", headings).at, 2);
  assert.deepEqual(progressOf('{\n  "Who it serves": [', headings).at, 2);
});
