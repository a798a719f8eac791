import type { DocumentTypeEntry, Workflow, WorkflowEntry } from "archwright-client";

/** Where a project stands with a document type. */
export type State = WorkflowEntry["status"];

/** A document type, and where the project stands with it. */
export interface Step {
  type: string;
  title: string;
  phase: string;
  /** The name under which its document is kept. */
  path: string;
  /** The types that it stands on. */
  needs: string[];
  /** What its document has to contain. */
  headings: string[];
  state: State;
  /** When its document was accepted, or else drafted. */
  at: string | null;
}

/** Steps that belong together. */
export interface Phase {
  name: string;
  steps: Step[];
}

/** The steps of a project, in the order in which it goes through them. */
export function stepsOf(types: DocumentTypeEntry[], workflow: Workflow): Step[] {
  const byType = new Map(types.map((entry) => [entry.type, entry]));
  return workflow.documents.map((entry) => ({
    type: entry.type,
    title: byType.get(entry.type)?.title ?? entry.type,
    phase: entry.phase,
    path: entry.output_path,
    needs: entry.depends_on,
    headings: byType.get(entry.type)?.required_headings ?? [],
    state: entry.status,
    at: entry.updated_at,
  }));
}

/** The phases in their order. */
export function phasesOf(steps: Step[]): Phase[] {
  const phases = new Map<string, Step[]>();
  for (const step of steps) phases.set(step.phase, [...(phases.get(step.phase) ?? []), step]);
  return [...phases].map(([name, within]) => ({ name: nameOf(name), steps: within }));
}

/** Whether there is a document of a step, be it stale. */
export const isWritten = ({ state }: Step): boolean => state === "done" || state === "stale";

/** Whether something can be done about a step now. */
export const isOpen = ({ state }: Step): boolean => state !== "done" && state !== "missing";

/** What there is to do about a step, as a verb. */
export function verbOf({ state }: Step): string {
  if (state === "draft") return "Go on with";
  return state === "stale" ? "Renew" : "Draft";
}

/** What makes a step missing or stale: what it waits for, or what changed later. */
export function causesOf(step: Step, steps: Step[]): Step[] {
  const needs = needsOf(step, steps);
  if (step.state === "missing") return needs.filter((need) => !isWritten(need));
  if (step.state !== "stale") return [];
  return needs.filter((need) => isWritten(need) && time(need) > time(step));
}

/** The steps that a step stands on. */
export function needsOf(step: Step, steps: Step[]): Step[] {
  return steps.filter(({ type }) => step.needs.includes(type));
}

/** The steps that stand on a step. */
export function dependentsOf(step: Step, steps: Step[]): Step[] {
  return steps.filter(({ needs }) => needs.includes(step.type));
}

/** Which steps are stale now and were not before. */
export function turnedStale(before: Step[], now: Step[]): Step[] {
  const were = new Set(before.filter(({ state }) => state === "stale").map(({ type }) => type));
  return now.filter(({ type, state }) => state === "stale" && !were.has(type));
}

const LIST = new Intl.ListFormat("en-GB", { type: "conjunction" });

/** Titles as a part of a sentence: `A, B and 3 more`. */
export function listed(steps: Pick<Step, "title">[], most = 2): string {
  const titles = steps.map(({ title }) => title);
  const rest = titles.length - most;
  // To leave one out saves nothing.
  if (rest <= 1) return LIST.format(titles);
  return LIST.format([...titles.slice(0, most), `${rest} more`]);
}

function nameOf(phase: string): string {
  const words = phase.replace(/[-_]+/g, " ").trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function time({ at }: Step): number {
  return at === null ? 0 : Date.parse(at);
}
