import { placeOf, spaced } from "./names.ts";

/** What a new text begins with: a template that can be saved as it is, else nothing. */
export function starterOf(path: string): string {
  const { kind, phase, type } = placeOf(path);
  if (kind !== "template") return "";
  const title = spaced(type);
  return `---
title: ${title}
phase: ${phase}
order: 900
output_path: docs/${phase}/${type}.md
depends_on: []
required_headings:
  - Purpose
good:
  - "The first paragraph says who reads this, and when."
---
# {{ project_name }}: ${title}

## Purpose

<!-- Who reads this, and what they do with it. -->

[TODO: purpose]
`;
}
