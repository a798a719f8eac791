import assert from "node:assert/strict";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import test, { after, before } from "node:test";
import { ArchwrightError, createClient, failure, readable } from "../src/index.ts";

interface Answer {
  status: number;
  body?: string | object;
  headers?: Record<string, string>;
}

let answer: Answer | undefined;
let server: Server;
let address: string;

before(async () => {
  server = createServer((request, response) => {
    request.resume();
    if (!answer) return void request.socket.destroy();
    response.writeHead(answer.status, answer.headers);
    response.end(typeof answer.body === "object" ? JSON.stringify(answer.body) : answer.body);
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
after(() => server.close());

/** What a client says of an answer. */
async function told(given: Answer | undefined): Promise<ArchwrightError> {
  answer = given;
  try {
    await createClient({ address }).me();
  } catch (error) {
    assert(error instanceof ArchwrightError);
    return error;
  }
  throw new Error("nothing was thrown");
}

const PAGE = "<!DOCTYPE html>\n<html><body><h1>502 Bad Gateway</h1></body></html>";
const AWAY = "The service is away at the moment. Try again in a few seconds.";
const SHAPES: [string, Answer | undefined, [number, string, string]][] = [
  [
    "the chat API's",
    { status: 404, body: { error: "not_found", message: "There is no such project." } },
    [404, "not_found", "There is no such project."],
  ],
  [
    "the drafting API's",
    { status: 403, body: { detail: "This project is somebody else's." } },
    [403, "forbidden", "This project is somebody else's."],
  ],
  [
    "a ZodError",
    {
      status: 400,
      body: {
        success: false,
        error: {
          name: "ZodError",
          issues: [
            { path: ["settings", "topK"], message: "Must be at least 1", code: "too_small" },
            { path: [], message: "Too much.", code: "custom" },
          ],
        },
      },
    },
    [400, "bad_request", "settings.topK: Must be at least 1. Too much."],
  ],
  [
    "FastAPI's list",
    {
      status: 422,
      body: {
        detail: [
          { type: "missing", loc: ["body", "history", 0, "role"], msg: "Field required" },
          { type: "value_error", loc: ["query", "q"], msg: "Value error, must not be blank." },
        ],
      },
    },
    [422, "invalid", "history.0.role: Field required. q: must not be blank."],
  ],
  ["plain text", { status: 400, body: "Invalid host header" }, [400, "bad_request", "Invalid host header"]],
  ["a proxy's page", { status: 502, body: PAGE }, [502, "unavailable", AWAY]],
  ["no body", { status: 503 }, [503, "unavailable", AWAY]],
  ["no body, and a rare status", { status: 418 }, [418, "refused", "The service does not take this request (418)."]],
  ["an empty object", { status: 500, body: {} }, [500, "internal_error", "The service failed (500). Try again in a moment."]],
  ["a list", { status: 500, body: "[{}]" }, [500, "internal_error", "The service failed (500). Try again in a moment."]],
  ["objects in place of sentences", { status: 401, body: { error: {}, message: {}, detail: {} } }, [401, "unauthorized", "Sign in with a key or token that is valid."]],
  ["a long text", { status: 413, body: "x".repeat(5000) }, [413, "too_large", "This is too large."]],
  ["no answer", undefined, [0, "unreachable", "The service does not answer. Check the connection, and try again."]],
  ["a page in place of JSON", { status: 200, body: PAGE }, [200, "unexpected_answer", "What answers is not Archwright. Check the address, and what lies in between."]],
  ["a way to elsewhere", { status: 302, headers: { Location: "/" } }, [0, "unreachable", "The service does not answer. Check the connection, and try again."]],
];

for (const [name, given, expected] of SHAPES) {
  test(`an error can be read: ${name}`, async () => {
    const error = await told(given);
    assert.deepEqual([error.status, error.code, error.message], expected);
    assert.equal(readable(error), error.message);
  });
}

test("an error knows what it came with", async () => {
  const finding = { path: "a.md", severity: "error", code: "x", line: 3, message: "No." };
  const error = await told({
    status: 409,
    headers: { "Retry-After": "7", ETag: '"0f3a"' },
    body: { detail: "Not now.", run_id: "r", findings: [finding] },
  });
  assert.deepEqual(
    [error.runId, error.retryAfter, error.version, error.findings, error.issues],
    ["r", 7, "0f3a", [finding], []],
  );
  const zod = await told({ status: 400, body: { error: { issues: [{ path: ["a", 1], message: "No." }] } } });
  assert.deepEqual(zod.issues, [{ path: ["a", 1], message: "No." }]);
  const date = new Date(Date.now() + 60_000).toUTCString();
  const later = await told({ status: 503, headers: { "Retry-After": date } });
  assert(later.retryAfter! >= 58 && later.retryAfter! <= 60);
  const never = await told({ status: 503, headers: { "Retry-After": "soon" } });
  assert.equal(never.retryAfter, undefined);
});

const THROWN: [unknown, string][] = [
  ["No.", "No."],
  [new Error("Broken."), "Broken."],
  [{ type: "error", data: { type: "error", message: "LLM_API_ERROR", detail: "401 No." } }, "401 No."],
  [{ type: "error", data: { error: "Too late.", code: "STREAM_ERROR", retry: false } }, "Too late."],
  [{ type: "error", data: { message: "It is empty." } }, "It is empty."],
  [{ detail: [{ loc: ["body", "q"], msg: "No" }] }, "q: No."],
  ...[{}, [], null, undefined, 7, "", { message: {} }, new Error("")].map(
    (value): [unknown, string] => [value, "Something went wrong. Try again."],
  ),
];

test("whatever is thrown or told can be read", () => {
  for (const [value, expected] of THROWN) assert.equal(readable(value), expected);
});

test("the last event of a stream can be thrown", () => {
  const chat = failure({ runId: "r", data: { type: "error", message: "INTERNAL_ERROR", detail: "No." } });
  assert.deepEqual([chat.code, chat.message, chat.runId], ["INTERNAL_ERROR", "No.", "r"]);
  const draft = failure({ data: { error: "No.", code: "STREAM_ERROR", retry: false } });
  assert.deepEqual([draft.code, draft.message], ["STREAM_ERROR", "No."]);
  const document = failure({ data: { message: "It is empty." } });
  assert.deepEqual([document.code, document.message], ["failed", "It is empty."]);
});

test("a secret that cannot be a header is not told", async () => {
  for (const secret of ["secret\n1", "se cret", "sécret", ""]) {
    for (const credentials of [{ apiKey: secret }, { token: secret }]) {
      const error = await createClient({ address, credentials }).me().catch((thrown) => thrown);
      assert.equal(error.status, 401);
      assert(!secret || !`${error.message}${error.stack}${error.cause}`.includes(secret));
    }
  }
});

test("no parameter leads to another route", async () => {
  const api = createClient({ address });
  for (const id of ["", ".", ".."]) {
    await assert.rejects(api.projects.delete(id), { status: 404 });
    await assert.rejects(api.texts().get(`prompts/${id}/answer.md`), { status: 404 });
    await assert.rejects(api.documents.upload(id, []), { status: 404 });
    await assert.rejects(api.chatStream(id, "?").next(), { status: 404 });
    await assert.rejects(api.stop(id), { status: 404 });
  }
});
