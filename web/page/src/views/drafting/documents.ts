import { ArchwrightError, type Document } from "archwright-client";
import { api } from "$/api.ts";
import type { Step } from "./steps.ts";

/** A text as it was accepted. */
export interface Version {
  text: string;
  at: string;
}

const PAGE = 200;
// What the service says of an id that is none, of one that is not the caller's, and of a lost one.
const REFUSED = [403, 404, 410, 422];

/** The document of a step as the project has it; null where there is none. */
export async function acceptedOf(project: string, step: Step): Promise<Version | null> {
  const names = [step.path, `${step.type}.md`, `${step.type}.json`];
  const found = await newest(project, names);
  if (!found) return null;
  const content = await api.documents.content(found.id);
  return { text: plain(await content.text()), at: found.createdAt };
}

/** A draft that was made before, in this or another browser. */
export interface Earlier {
  conversation: string;
  run: string;
  text: string;
}

/** How the message of each draft begins, and so the title of its conversation. */
export const opening = ({ title }: Step): string => `Draft: ${title}.`;

/** The newest draft of a step that the caller has asked for; null where there is none. */
export async function earlierOf(project: string, step: Step): Promise<Earlier | null> {
  const conversations = await api.conversations.list(project, { limit: PAGE });
  const found = conversations.find(({ title }) => title.startsWith(opening(step)));
  return found ? lastIn(found.id) : null;
}

/** The conversation in which a run drafts this step; null where the run is of something else. */
export async function conversationOf(
  run: string,
  project: string,
  step: Step,
): Promise<string | null> {
  try {
    const { conversationId } = await api.run(run);
    if (!conversationId) return null;
    const { projectId, title } = await api.conversations.get(conversationId);
    return projectId === project && title.startsWith(opening(step)) ? conversationId : null;
  } catch (error) {
    if (error instanceof ArchwrightError && REFUSED.includes(error.status)) return null;
    throw error;
  }
}

/** The last draft of a conversation; null where it has none. */
export async function lastIn(conversation: string): Promise<Earlier | null> {
  const { messages } = await api.conversations.get(conversation);
  const last = messages.findLast(({ role, content }) => role === "assistant" && content.trim());
  return last ? { conversation, run: last.id, text: plain(last.content) } : null;
}

/** A text with the line ends that an editor gives it. */
export const plain = (text: string): string => text.replace(/\r\n?/g, "\n");

async function newest(project: string, names: string[]): Promise<Document | null> {
  let before: string | undefined;
  for (;;) {
    const documents = await api.documents.list(project, { limit: PAGE, before });
    const found = documents.find(({ name, status }) => names.includes(name) && status === "indexed");
    if (found) return found;
    if (documents.length < PAGE) return null;
    before = documents.at(-1)!.createdAt;
  }
}
