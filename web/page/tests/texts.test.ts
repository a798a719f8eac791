import assert from "node:assert/strict";
import { test } from "node:test";
import type { DocumentTypeEntry, TextEntry } from "archwright-client";
import { groupsOf, type KindChoice } from "../src/views/texts/groups.ts";

const type = (name: string, title: string, phase: string, output: string): DocumentTypeEntry => ({
  type: name,
  title,
  phase,
  output_path: output,
  depends_on: [],
  required_headings: [],
  version: "0".repeat(16),
});
const TYPES = [
  type("STORIES", "User stories", "requirements", "docs/STORIES.json"),
  type("ROADMAP", "Roadmap", "planning", "docs/ROADMAP.md"),
];
const text = (path: string, source: TextEntry["source"] = "file"): TextEntry => ({
  path,
  kind: path.startsWith("prompts") ? "prompt" : path.includes("/example.") ? "example" : "template",
  version: "0".repeat(16),
  source,
  updated_at: null,
});
const TEXTS = [
  text("prompts/answer.md", "override"),
  text("templates/planning/ROADMAP/example.md"),
  text("templates/planning/ROADMAP/template.md"),
  text("templates/planning/ZEBRA_CROSSING/template.md"),
  text("templates/requirements/STORIES/template.md", "edit"),
];

const shown = (wanted = "", kind: KindChoice = "all"): string[] =>
  groupsOf(TEXTS, TYPES, wanted, kind).flatMap(({ name, rows }) =>
    rows.map(
      ({ title, parts }) =>
        `${name}: ${title}: ${parts.map(({ label, entry }) => label + (entry ? "" : "?")).join(", ")}`,
    ),
  );

test("prompts come first, then the types in the course of a project", () => {
  assert.deepEqual(shown(), [
    "Prompts: Answers: Prompt",
    "Requirements: User stories: Template, Example?",
    "Planning: Roadmap: Template, Example",
    "Planning: Zebra crossing: Template, Example?",
  ]);
});

test("what is wanted is looked for in titles and paths, and in one kind alone", () => {
  assert.deepEqual(shown("STORIES user"), ["Requirements: User stories: Template, Example?"]);
  assert.deepEqual(shown("planning", "example"), [
    "Planning: Roadmap: Example",
    "Planning: Zebra crossing: Example?",
  ]);
  assert.deepEqual(shown("", "changed"), [
    "Prompts: Answers: Prompt",
    "Requirements: User stories: Template",
  ]);
  assert.deepEqual(shown("nowhere"), []);
});

test("an example that is missing would lie where the type's documents tell", () => {
  const paths = groupsOf(TEXTS, TYPES, "", "example").flatMap(({ rows }) =>
    rows.flatMap(({ parts }) => parts.map(({ path }) => path)),
  );
  assert.deepEqual(paths, [
    "templates/requirements/STORIES/example.json",
    "templates/planning/ROADMAP/example.md",
    "templates/planning/ZEBRA_CROSSING/example.md",
  ]);
});
