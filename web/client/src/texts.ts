import { paged, type Call, type Page } from "./calls.ts";
import type { CallOptions } from "./connection.ts";
import type {
  Diff,
  EditAnswer,
  HistoryEntryOutput,
  Preview,
  PreviewRequest,
  Text,
  TextEntry,
  TextFinding,
  UsedTexts,
} from "./openapi.ts";

/** Prompts, templates and examples: those of all projects, or those of one. */
export function texts(anywhere: Call, projectId?: string) {
  const call = projectId === undefined ? anywhere : within(anywhere, projectId);
  return {
    /** All that count, with where they come from. */
    async list({ signal }: CallOptions = {}): Promise<TextEntry[]> {
      return (await call("get", "/api/v1/texts", { signal })).texts;
    },

    /** The one that counts at a path such as `prompts/answer.md`. */
    async get(path: string, { signal }: CallOptions = {}): Promise<Text> {
      return (await call("get", "/api/v1/texts/{path}", { path: { path }, signal })).text;
    },

    /**
     * Write a text over the version `replaces`; `null` where there is none yet.
     *
     * @throws {ArchwrightError} 412, it was changed meanwhile: `version` is what counts now;
     *   422, it could not be used: `findings` say why.
     */
    put(
      path: string,
      content: string,
      replaces: string | null,
      { signal }: CallOptions = {},
    ): Promise<EditAnswer> {
      const parts = { path: { path }, body: { content }, headers: over(replaces), signal };
      return call("put", "/api/v1/texts/{path}", parts);
    },

    /** Give the edit `replaces` up; gives what counts again, if there is something. */
    async delete(
      path: string,
      replaces: string,
      { signal }: CallOptions = {},
    ): Promise<Text | undefined> {
      const parts = { path: { path }, headers: over(replaces), signal };
      return (await call("delete", "/api/v1/texts/{path}", parts))?.text;
    },

    /** Make `version` count again, as a new edit over the version `replaces`. */
    restore(
      path: string,
      version: string,
      replaces: string | null,
      { signal }: CallOptions = {},
    ): Promise<EditAnswer> {
      const parts = { path: { path }, body: { version }, headers: over(replaces), signal };
      return call("post", "/api/v1/texts/{path}/restore", parts);
    },

    /** The versions of a text, the newest first. */
    async history(path: string, page: Page = {}): Promise<HistoryEntryOutput[]> {
      const parts = { path: { path }, query: paged(page), signal: page.signal };
      return (await call("get", "/api/v1/texts/{path}/history", parts)).versions;
    },

    /** A text as it was. */
    async version(path: string, version: string, { signal }: CallOptions = {}): Promise<Text> {
      const parts = { path: { path, version }, signal };
      return (await call("get", "/api/v1/texts/{path}/versions/{version}", parts)).text;
    },

    /** What changed: by default from what lies beneath the one that counts, or was before it. */
    diff(
      path: string,
      { from, to, signal }: CallOptions & { from?: string; to?: string } = {},
    ): Promise<Diff> {
      return call("get", "/api/v1/texts/{path}/diff", { path: { path }, query: { from, to }, signal });
    },

    /** What a text becomes with these values, and what is wrong with it. Nothing is stored. */
    preview(
      path: string,
      body: PreviewRequest = {},
      { signal }: CallOptions = {},
    ): Promise<Preview> {
      return call("post", "/api/v1/texts/{path}/preview", { path: { path }, body, signal });
    },

    /** What is wrong with the texts that count, with `changed` (by path) laid over them. */
    async check(
      changed: Record<string, string> = {},
      { signal }: CallOptions = {},
    ): Promise<TextFinding[]> {
      return (await call("post", "/api/v1/texts/check", { body: { texts: changed }, signal })).findings;
    },

    /** The texts behind the `promptVersion` or `templateVersion` of an answer. */
    used(version: string, { signal }: CallOptions = {}): Promise<UsedTexts> {
      return call("get", "/api/v1/versions/{version}", { path: { version }, signal });
    },
  };
}

/** The same calls for the texts of a project, whose routes have the same shape. */
function within(call: Call, projectId: string): Call {
  const own = call as (method: string, path: string, parts: Parts) => Promise<never>;
  return (method, path, parts: Parts) =>
    own(method, path.replace("/api/v1", "/api/v1/projects/{project_id}"), {
      ...parts,
      path: { ...parts.path, project_id: projectId },
    });
}

interface Parts {
  path?: object;
}

function over(version: string | null): Record<string, string> {
  return version === null ? { "If-None-Match": "*" } : { "If-Match": `"${version}"` };
}
