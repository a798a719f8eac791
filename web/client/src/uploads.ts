import { answered, type CallOptions, type Connection } from "./connection.ts";
import { refused, unexpected, unreachable } from "./errors.ts";
import type { Document } from "./openapi.ts";

/** A file of the browser, or a name with its bytes. */
export type UploadFile = File | { name: string; data: Blob };

export interface UploadOptions extends CallOptions {
  /** Called as bytes leave; in Node, whose `fetch` does not tell, once at the end. */
  onProgress?: ((sent: number, total: number) => void) | undefined;
}

/** Send files as one form. */
export async function upload(
  connection: Connection,
  path: string,
  files: readonly UploadFile[],
  options: UploadOptions,
): Promise<Document[]> {
  const form = new FormData();
  for (const file of files) {
    if ("data" in file) form.append("file", file.data, file.name);
    else form.append("file", file);
  }
  const answer = await (options.onProgress && typeof XMLHttpRequest !== "undefined"
    ? watched(connection, path, form, options)
    : fetched(connection, path, form, files, options));
  return (answer as { documents: Document[] }).documents;
}

async function fetched(
  connection: Connection,
  path: string,
  form: FormData,
  files: readonly UploadFile[],
  { signal, onProgress }: UploadOptions,
): Promise<unknown> {
  const answer = await connection.json(path, { method: "POST", body: form, signal });
  const total = files.reduce((sum, file) => sum + ("data" in file ? file.data : file).size, 0);
  onProgress?.(total, total);
  return answer;
}

/** With XMLHttpRequest, the only one that tells how much has left. */
async function watched(
  connection: Connection,
  path: string,
  form: FormData,
  { signal, onProgress }: UploadOptions,
): Promise<unknown> {
  const headers = await connection.identity();
  signal?.throwIfAborted();
  const request = new XMLHttpRequest();
  request.open("POST", connection.url(path));
  request.setRequestHeader("Accept", "application/json");
  for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
  request.upload.onprogress = ({ loaded, total }) => onProgress?.(loaded, total);
  const abort = (): void => request.abort();
  signal?.addEventListener("abort", abort);
  try {
    await answered(signal, () => sent(request, form, connection.patience.silenceMs));
  } finally {
    signal?.removeEventListener("abort", abort);
  }
  return read(request);
}

/** Send a form; one that moves no further for so long is given up. */
function sent(request: XMLHttpRequest, form: FormData, silenceMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    let silence: ReturnType<typeof setTimeout>;
    const moves = (): void => {
      clearTimeout(silence);
      silence = setTimeout(() => request.abort(), silenceMs);
    };
    request.onload = () => resolve();
    request.onerror = request.onabort = () => reject(unreachable());
    request.onloadend = () => clearTimeout(silence);
    request.upload.addEventListener("progress", moves);
    moves();
    request.send(form);
  });
}

function read(request: XMLHttpRequest): unknown {
  const { status, responseText } = request;
  if (status < 100) throw unreachable("The answer broke off in its first line.");
  if (status >= 300) throw refused(status, (name) => request.getResponseHeader(name), responseText);
  try {
    return JSON.parse(responseText);
  } catch {
    throw unexpected(status);
  }
}
