import { paged, type Call, type Page } from "./calls.ts";
import type { CallOptions } from "./connection.ts";
import type {
  AdminProvider,
  AuditEntry,
  Group,
  KeyEntry,
  LimitEntry,
  ListedModel,
  ListedProvider,
  Me,
  NewKey,
  NewKeyAnswer,
  NewProvider,
  Person,
  ProviderChange,
  Trial,
  TrialAnswer,
  UsageAnswer,
  operations,
} from "./openapi.ts";

/** The endpoints of models. What changes them needs the role admin. */
export function providers(call: Call) {
  return {
    async list({ signal }: CallOptions = {}): Promise<ListedProvider[]> {
      return (await call("get", "/providers", { signal })).providers;
    },

    /** The models that can be asked; `id` is what a `modelId` may be. */
    async models({ signal }: CallOptions = {}): Promise<ListedModel[]> {
      return (await call("get", "/providers/models", { signal })).models;
    },

    /** All of them, with masked keys and with what is wrong. */
    async admin({ signal }: CallOptions = {}): Promise<AdminProvider[]> {
      return (await call("get", "/providers/admin", { signal })).providers;
    },

    async create(body: NewProvider, { signal }: CallOptions = {}): Promise<AdminProvider> {
      return (await call("post", "/providers", { body, signal })).provider;
    },

    /** An empty `apiKey` keeps the one that is stored. */
    async change(
      id: string,
      body: ProviderChange,
      { signal }: CallOptions = {},
    ): Promise<AdminProvider> {
      const path = { provider_id: id };
      return (await call("patch", "/providers/{provider_id}", { path, body, signal })).provider;
    },

    async delete(id: string, { signal }: CallOptions = {}): Promise<void> {
      await call("delete", "/providers/{provider_id}", { path: { provider_id: id }, signal });
    },

    /** Ask a model one short question, also with an address or key that is not stored. */
    test(id: string, body: Trial, { signal }: CallOptions = {}): Promise<TrialAnswer> {
      const path = { provider_id: id };
      return call("post", "/providers/{provider_id}/test", { path, body, signal });
    },
  };
}

/** API keys of one's own. */
export function keys(call: Call) {
  return {
    /** The caller's, or for admins those of `userId`. */
    async list({ userId, ...page }: Page & { userId?: string } = {}): Promise<KeyEntry[]> {
      const parts = { query: { ...paged(page), userId }, signal: page.signal };
      return (await call("get", "/keys", parts)).keys;
    },

    /** The key is in `secret`, this once. */
    create(body: NewKey, { signal }: CallOptions = {}): Promise<NewKeyAnswer> {
      return call("post", "/keys", { body, signal });
    },

    async revoke(id: string, { signal }: CallOptions = {}): Promise<void> {
      await call("delete", "/keys/{key_id}", { path: { key_id: id }, signal });
    },
  };
}

/** Who is there. */
export function people(call: Call) {
  return {
    async me({ signal }: CallOptions = {}): Promise<Me> {
      return (await call("get", "/me", { signal })).user;
    },

    async users(
      { email, limit, signal }: CallOptions & { email?: string; limit?: number } = {},
    ): Promise<Person[]> {
      return (await call("get", "/users", { query: { email, limit }, signal })).users;
    },

    async groups(
      { name, limit, signal }: CallOptions & { name?: string; limit?: number } = {},
    ): Promise<Group[]> {
      return (await call("get", "/groups", { query: { name, limit }, signal })).groups;
    },
  };
}

/** Which usage: days in UTC as `2026-01-31`, both included. */
export interface UsageQuery extends CallOptions {
  from?: string;
  to?: string;
  projectId?: string;
  userId?: string;
}

export type AuditAction = NonNullable<
  NonNullable<operations["list_entries_audit_get"]["parameters"]["query"]>["action"]
>;

export interface AuditQuery extends Page {
  actorId?: string;
  projectId?: string;
  /** Such as `grant.created`. */
  action?: AuditAction;
}

/** What was used, what is left, and what was done by whom. */
export function accounts(call: Call) {
  return {
    /** The caller's own; with tier `full` that of a project, and for admins all. */
    usage({ signal, ...query }: UsageQuery = {}): Promise<UsageAnswer> {
      return call("get", "/usage", { query, signal });
    },

    /** The caller's limits as they stand now; empty where none are set. */
    async limits({ signal }: CallOptions = {}): Promise<LimitEntry[]> {
      return (await call("get", "/usage/limits", { signal })).limits;
    },

    async audit({ signal, ...query }: AuditQuery = {}): Promise<AuditEntry[]> {
      return (await call("get", "/audit", { query, signal })).entries;
    },
  };
}
