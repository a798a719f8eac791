import type { Call } from "./calls.ts";
import type { CallOptions } from "./connection.ts";
import type {
  DocumentTypeEntry,
  IngestAnswer,
  KnowledgeStatus,
  SearchResult,
  Workflow,
} from "./openapi.ts";

/** What is around drafts: document types, the workflow, the project's knowledge. */
export function drafting(call: Call) {
  return {
    /** All types that can be drafted; with a project, as its own templates have them. */
    async documentTypes(
      projectId?: string,
      { signal }: CallOptions = {},
    ): Promise<DocumentTypeEntry[]> {
      const query = { project_id: projectId };
      return (await call("get", "/api/v1/document-types", { query, signal })).document_types;
    },

    /** How far a project's documents are, type by type, and which is next. */
    workflow(projectId: string, { signal }: CallOptions = {}): Promise<Workflow> {
      const path = { project_id: projectId };
      return call("get", "/api/v1/projects/{project_id}/workflow", { path, signal });
    },

    /** Take a Markdown text in, in place of the one with the same name. */
    ingest(
      projectId: string,
      name: string,
      markdown: string,
      { signal }: CallOptions = {},
    ): Promise<IngestAnswer> {
      const path = { project_id: projectId };
      const body = { doc_name: name, markdown_content: markdown };
      return call("post", "/api/v1/projects/{project_id}/documents/ingest", { path, body, signal });
    },

    /** The passages of a project that fit a question, best first. */
    async search(
      projectId: string,
      q: string,
      { limit, signal }: CallOptions & { limit?: number } = {},
    ): Promise<SearchResult[]> {
      const query = { q, project_id: projectId, ...(limit && { limit }) };
      return (await call("get", "/api/v1/knowledge/search", { query, signal })).results;
    },

    status(projectId: string, { signal }: CallOptions = {}): Promise<KnowledgeStatus> {
      return call("get", "/api/v1/knowledge/status", { query: { project_id: projectId }, signal });
    },
  };
}
