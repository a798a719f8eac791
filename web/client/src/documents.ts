import { filled, paged, type Call, type Page } from "./calls.ts";
import { answered, type CallOptions, type Connection } from "./connection.ts";
import type { DocumentEvent } from "./events.ts";
import type { Document } from "./openapi.ts";
import { eventStream, type EventStream, type StreamOptions } from "./streams.ts";
import { upload, type UploadFile, type UploadOptions } from "./uploads.ts";

/** The documents of projects. */
export function documents(connection: Connection, call: Call) {
  const path = (id: string): { document_id: string } => ({ document_id: id });
  return {
    async list(projectId: string, page: Page = {}): Promise<Document[]> {
      const parts = { path: { project_id: projectId }, query: paged(page), signal: page.signal };
      return (await call("get", "/documents/projects/{project_id}", parts)).documents;
    },

    async get(id: string, { signal }: CallOptions = {}): Promise<Document> {
      return (await call("get", "/documents/{document_id}", { path: path(id), signal })).document;
    },

    /** Upload files in one request; each document then tells its way in with `events`. */
    async upload(
      projectId: string,
      files: readonly UploadFile[],
      options: UploadOptions = {},
    ): Promise<Document[]> {
      return upload(connection, filled("/documents/projects/{id}", { id: projectId }), files, options);
    },

    /** How far a document is, from `after` on, to `done` or `error`. */
    events(id: string, after = 0, options: StreamOptions = {}): EventStream<DocumentEvent> {
      const pathOf = (): string => filled("/documents/{id}/events", { id });
      return eventStream<DocumentEvent>(connection, { runId: id, after, pathOf }, options);
    },

    /** The file itself. */
    async content(id: string, { signal }: CallOptions = {}): Promise<Blob> {
      const url = filled("/documents/{id}/content", { id });
      const response = await connection.send(url, { method: "GET", signal });
      return answered(signal, () => response.blob());
    },

    /** With its passages, and what quotes them. */
    async delete(id: string, { signal }: CallOptions = {}): Promise<void> {
      await call("delete", "/documents/{document_id}", { path: path(id), signal });
    },
  };
}
