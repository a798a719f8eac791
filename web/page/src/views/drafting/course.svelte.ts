import { api } from "$/api.ts";
import { isOpen, stepsOf, type Step } from "./steps.ts";

/** A project's way through its document types. */
export class Course {
  /** All steps, in their order. */
  steps = $state.raw<Step[]>([]);

  /** The step to take next; null where all is done. A draft that waits to be accepted comes first. */
  readonly next = $derived(this.steps.find(isOpen) ?? null);

  readonly projectId: string;

  constructor(projectId: string) {
    this.projectId = projectId;
  }

  /** Read it anew.
   *
   * @throws {ArchwrightError} where the service refuses or does not answer.
   */
  async read(): Promise<void> {
    const [types, workflow] = await Promise.all([
      api.drafting.documentTypes(this.projectId),
      api.drafting.workflow(this.projectId),
    ]);
    this.steps = stepsOf(types, workflow);
  }

  /** The step of a type. */
  find(type: string | null): Step | null {
    return this.steps.find((step) => step.type === type) ?? null;
  }
}
