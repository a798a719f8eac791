export { createClient, newId, type Api, type AskOptions, type Mode } from "./api.ts";
export type { Page } from "./calls.ts";
export type {
  CallOptions,
  ClientOptions,
  Credentials,
  ReadCredentials,
} from "./connection.ts";
export { ArchwrightError, failure, readable, type Issue } from "./errors.ts";
export type * from "./events.ts";
export type * from "./openapi.ts";
export type { AuditAction, AuditQuery, UsageQuery } from "./operating.ts";
export type { PatienceLimits, Wait, Waiting } from "./patience.ts";
export type { EventStream, StreamOptions } from "./streams.ts";
export type { UploadFile, UploadOptions } from "./uploads.ts";
