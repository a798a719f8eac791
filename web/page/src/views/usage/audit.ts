import type { AuditAction, AuditEntry } from "archwright-client";
import type { Names } from "./people.ts";

/** What was done, as the beginning of a sentence whose subject is a person. */
export const ACTIONS: Record<AuditAction, string> = {
  "grant.created": "shared a project",
  "grant.updated": "changed a share",
  "grant.revoked": "took a share back",
  "key.created": "made a key",
  "key.revoked": "revoked a key",
  "project.changed": "changed a project",
  "project.deleted": "deleted a project",
  "document.deleted": "deleted a document",
  "conversation.deleted": "deleted a conversation",
  "provider.created": "added a provider",
  "provider.changed": "changed a provider",
  "provider.deleted": "deleted a provider",
  "text.edited": "edited a text",
  "text.given_up": "gave an edit up",
};

/** What an entry says beside who and when: to what it was done, and its details. */
export function toldBy(entry: AuditEntry, names: Names): string[] {
  const { action, targetType, targetId, details, projectId } = entry;
  const told = [
    targetType === "text" ? targetId : "",
    details["tier"] ? `tier ${String(details["tier"])}` : "",
    details["targetType"] === "user" ? `for ${names.person(String(details["targetId"]))}` : "",
    details["targetType"] === "group" ? `for the group ${String(details["targetId"]).slice(0, 8)}` : "",
    details["slug"] ? String(details["slug"]) : "",
    Array.isArray(details["fields"]) && details["fields"].length ? details["fields"].join(", ") : "",
    projectId && action !== "project.deleted" ? `in ${names.project(projectId)}` : "",
  ];
  return told.filter(Boolean);
}

/** Who did it: their name where it is known, else how they were signed in. */
export function actorOf({ actorId, actor }: AuditEntry, names: Names): string {
  const name = names.person(actorId);
  return name === actorId.slice(0, 8) ? (actor.split(":").at(-1) ?? actor) : name;
}
