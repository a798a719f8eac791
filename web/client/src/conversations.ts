import { paged, type Call, type Page } from "./calls.ts";
import type { CallOptions } from "./connection.ts";
import type {
  ChatConfig,
  ChunkSource,
  Conversation,
  ConversationEntry,
  RecentConversation,
} from "./openapi.ts";

/** Conversations, which are their owner's alone. */
export function conversations(call: Call) {
  return {
    /** The caller's own in a project, the newest first. */
    async list(projectId: string, page: Page = {}): Promise<ConversationEntry[]> {
      const parts = { path: { project_id: projectId }, query: paged(page), signal: page.signal };
      return (await call("get", "/chat/projects/{project_id}/conversations", parts)).conversations;
    },

    /** The caller's own in all projects, those with the latest turn first. */
    async recent(page: Page = {}): Promise<RecentConversation[]> {
      const { signal } = page;
      return (await call("get", "/chat/recent", { query: paged(page), signal })).conversations;
    },

    /** With its messages; the id of an answer is that of its run. */
    async get(id: string, { signal }: CallOptions = {}): Promise<Conversation> {
      const parts = { path: { conversation_id: id }, signal };
      return (await call("get", "/chat/conversations/{conversation_id}", parts)).conversation;
    },

    async rename(id: string, title: string, { signal }: CallOptions = {}): Promise<Conversation> {
      const parts = { path: { conversation_id: id }, body: { title }, signal };
      return (await call("patch", "/chat/conversations/{conversation_id}", parts)).conversation;
    },

    async delete(id: string, { signal }: CallOptions = {}): Promise<void> {
      const path = { conversation_id: id };
      await call("delete", "/chat/conversations/{conversation_id}", { path, signal });
    },

    /** Which modes can be used. */
    config({ signal }: CallOptions = {}): Promise<ChatConfig> {
      return call("get", "/chat/config", { signal });
    },

    /** A passage that was cited, with what stands around it. */
    source(chunkId: string, { signal }: CallOptions = {}): Promise<ChunkSource> {
      return call("get", "/chat/chunks/{chunk_id}/source", { path: { chunk_id: chunkId }, signal });
    },
  };
}
