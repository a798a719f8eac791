import { newId, type DraftDone } from "archwright-client";
import { announce } from "$/announcements.svelte.ts";
import { api } from "$/api.ts";
import { place } from "$/router.svelte.ts";
import { session } from "$/session.svelte.ts";
import type { Course } from "./course.svelte.ts";
import { acceptedOf, conversationOf, earlierOf, lastIn, opening, plain, type Version } from "./documents.ts";
import { findingsOf, moved, summary, type Finding } from "./findings.ts";
import { keep, recall, type Asked } from "./kept.ts";
import { turnedStale, type Step } from "./steps.ts";
import { Writing, type Failure } from "./writing.svelte.ts";

const ENDS: Record<string, string> = {
  stopped: "It was stopped here, and not checked. Edit what is there, or draft it anew.",
  length: "The model has reached its longest answer: the end is missing. Edit it, or draft it anew.",
  content_filter: "The model's filter has ended the text here. Edit it, or draft it anew.",
};

/** One document at work: drafted, edited, accepted. */
export class Desk {
  /** `bare`: there is no text yet; `open`: there is one to edit. */
  stage = $state<"opening" | "bare" | "writing" | "open">("opening");
  text = $state("");
  findings = $state.raw<Finding[]>([]);
  /** What was typed for the next draft. */
  about = $state("");
  /** The text as the model wrote it, where it is from the model. */
  drafted = $state.raw<string | null>(null);
  /** The document as the project has it. */
  accepted = $state.raw<Version | null>(null);
  /** The one that the accepted one has replaced while this view was open. */
  replaced = $state.raw<Version | null>(null);
  /** Why the last draft failed. */
  failure = $state.raw<Failure | null>(null);
  /** What is to be known of how the draft ended, as a sentence. */
  remark = $state<string | null>(null);
  /** What has turned stale when the text was accepted; null before. */
  outdated = $state.raw<Step[] | null>(null);

  /** Whether the tab could keep what was done last. */
  isKept = $state(true);

  /** Whether the text is another one than the project has. */
  readonly isUnaccepted = $derived(this.text !== (this.accepted?.text ?? ""));
  /** Whether the text is nowhere but in this tab. */
  readonly isEdited = $derived(this.isUnaccepted && this.text !== (this.drafted ?? ""));

  readonly course: Course;
  readonly step: Step;
  readonly writing: Writing;
  #asked: Asked | null = null;
  #run: string | null = null;
  #isLeft = false;

  constructor(course: Course, step: Step) {
    this.course = course;
    this.step = step;
    this.writing = new Writing({
      onrun: (run) => this.#began(run),
      ondone: (done) => this.#wrote(done),
      onfail: (failure) => this.#failed(failure),
      ongone: () => void this.#missed(),
    });
  }

  /** Show what there is: edits, a draft that is on its way or was made before, or the document.
   *
   * @throws {ArchwrightError} where the service refuses or does not answer.
   */
  async open(): Promise<void> {
    const kept = recall(this.course.projectId, this.step.type);
    const noted = place.query.get("run");
    const accepted = await acceptedOf(this.course.projectId, this.step);
    if (this.#isLeft) return;
    this.accepted = accepted;
    this.about = kept?.about ?? "";
    this.#asked = kept?.asked ?? null;
    if (kept && kept.text !== null) {
      place.note("run", null);
      this.drafted = kept.drafted;
      return this.#show(kept.text, kept.findings);
    }
    if (noted && noted !== kept?.run && (await this.#take(noted))) return;
    if (this.#isLeft) return;
    if (kept?.run) return this.#follow(kept.run);
    place.note("run", null);
    if (this.step.state === "draft") await this.#reopen();
    else this.#fallBack();
  }

  /** Have the model write it, with what was typed about it. */
  draft(): void {
    const conversation = this.#asked?.conversation ?? newId();
    const message = [opening(this.step), this.about.trim()].filter(Boolean).join("\n\n");
    this.#begin({ conversation, message, key: newId() });
  }

  /** Ask for the same again; costs nothing if it was written after all. */
  retry(): void {
    if (this.#asked?.message) this.#begin(this.#asked);
    else this.draft();
  }

  /** Take a text as it was changed by a person. */
  edit(text: string): void {
    this.findings = moved(this.findings, this.text, text);
    this.text = text;
    this.#keep();
  }

  /** Say that nothing is left to do about a finding, or that there is. */
  settle(id: number, isSettled: boolean): void {
    this.findings = this.findings.map((one) => (one.id === id ? { ...one, isSettled } : one));
    this.#keep();
  }

  /** Keep what is typed about the next draft. */
  note(about: string): void {
    this.about = about;
    this.#keep();
  }

  /** Go back to the accepted text. */
  revert(): void {
    Object.assign(this, { drafted: null, remark: null, failure: null });
    this.#fallBack();
    this.#keep();
  }

  /** Save the text as the project's document, so that the next ones stand on it.
   *
   * @throws {ArchwrightError} where it was not taken.
   */
  async accept(): Promise<void> {
    const { text, course, step } = this;
    const before = course.steps;
    await api.drafting.ingest(course.projectId, step.path, text);
    this.replaced = this.accepted;
    this.accepted = { text, at: new Date().toISOString() };
    Object.assign(this, { drafted: null, remark: null, failure: null });
    this.findings = [];
    this.#keep();
    // It is accepted, whatever the service answers now.
    await course.read().catch(() => {});
    this.outdated = turnedStale(before, course.steps);
  }

  /** Leave it; a draft goes on in the service. */
  leave(): void {
    this.#isLeft = true;
    this.writing.leave();
  }

  #begin(asked: Asked): void {
    this.#asked = asked;
    Object.assign(this, { stage: "writing", failure: null, remark: null, outdated: null });
    this.#run = null;
    this.#keep();
    announce(`${this.step.title} is being drafted.`);
    const request = {
      conversation_id: asked.conversation,
      project_id: this.course.projectId,
      doc_type: this.step.type,
      message: asked.message,
      ...(session.me && { user_name: session.me.name.slice(0, 100) }),
    };
    void this.writing.begin(request, asked.key);
  }

  #follow(run: string): void {
    this.stage = "writing";
    void this.writing.follow(run);
  }

  /** Follow a run that the address names; says whether it is one of this document. */
  async #take(run: string): Promise<boolean> {
    const conversation = await conversationOf(run, this.course.projectId, this.step);
    if (this.#isLeft || !conversation) return false;
    this.#asked = { conversation, message: "", key: newId() };
    this.#follow(run);
    return true;
  }

  #began(run: string): void {
    if (this.#isLeft) return;
    this.#run = run;
    place.note("run", run);
    this.#keep();
  }

  #wrote({ full_response, metadata }: DraftDone): void {
    if (this.#isLeft) return;
    this.#asked ??= { conversation: metadata.conversation_id, message: "", key: newId() };
    this.#over();
    this.remark = ENDS[metadata.finish_reason] ?? null;
    const text = plain(full_response);
    this.drafted = text;
    this.#show(text, findingsOf(metadata.warnings));
    this.about = "";
    this.#keep();
    announce(`The draft is there, with ${summary(this.findings)}.`);
    // It is the service that knows what counts as drafted.
    this.course.read().catch(() => {});
  }

  #failed(failure: Failure): void {
    if (this.#isLeft) return;
    this.#over();
    this.failure = failure;
    const came = plain(this.writing.whole);
    if (came.trim()) {
      this.drafted = came;
      this.#show(came, []);
    } else this.#goBack();
    this.#keep();
  }

  /** The run is not kept any more, but what it wrote is. */
  async #missed(): Promise<void> {
    const conversation = this.#asked?.conversation;
    const last = conversation ? await lastIn(conversation).catch(() => null) : null;
    if (this.#isLeft) return;
    this.#over();
    if (last) this.drafted = last.text;
    if (last) this.#show(last.text, []);
    else this.#goBack();
    this.#keep();
  }

  async #reopen(): Promise<void> {
    const earlier = await earlierOf(this.course.projectId, this.step);
    if (this.#isLeft) return;
    if (!earlier) {
      this.remark = "It was drafted elsewhere, and that draft cannot be found. Draft it anew.";
      return this.#fallBack();
    }
    this.#asked = { conversation: earlier.conversation, message: "", key: newId() };
    this.#follow(earlier.run);
  }

  #over(): void {
    this.#run = null;
    place.note("run", null);
  }

  /** Nothing has come that takes the place of what was there. */
  #goBack(): void {
    if (this.text && this.isUnaccepted) this.stage = "open";
    else this.#fallBack();
  }

  #fallBack(): void {
    this.findings = [];
    this.text = this.accepted?.text ?? "";
    this.stage = this.accepted ? "open" : "bare";
  }

  #show(text: string, findings: Finding[]): void {
    this.text = text;
    this.findings = findings;
    this.stage = "open";
  }

  #keep(): void {
    const { about, drafted, findings, course, step } = this;
    const isWriting = this.stage === "writing";
    const text = isWriting || !this.isUnaccepted ? null : this.text;
    const isWorth = text !== null || isWriting || about !== "";
    const kept = { text, drafted, findings, asked: this.#asked, run: this.#run, about };
    this.isKept = keep(course.projectId, step.type, isWorth ? kept : null);
  }
}
