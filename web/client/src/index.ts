export { createClient, newId, type Api, type AskOptions, type Mode } from "./api.js";
export type { Page } from "./calls.js";
export type {
  CallOptions,
  ClientOptions,
  Credentials,
  ReadCredentials,
} from "./connection.js";
export { ArchwrightError, failure, readable, type Issue } from "./errors.js";
export type * from "./events.js";
export type * from "./openapi.js";
export type { AuditAction, AuditQuery, UsageQuery } from "./operating.js";
export type { PatienceLimits, Wait, Waiting } from "./patience.js";
export type { EventStream, StreamOptions } from "./streams.js";
export type { UploadFile, UploadOptions } from "./uploads.js";
