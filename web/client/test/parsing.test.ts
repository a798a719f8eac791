import assert from "node:assert/strict";
import test from "node:test";
import { FrameParser, type Frame } from "../src/parsing.ts";

const EVENTS: Frame[] = [
  { id: "r:1", name: "meta", data: '{"model":"m"}' },
  { id: "r:2", name: "text", data: '{"delta":"ä – 𝄞: 漢"}' },
  { id: "r:3", name: "text", data: "" },
  { id: "r:4", name: "done", data: "two\nlines" },
];

function written(end: string): Uint8Array {
  const blocks = EVENTS.map(({ id, name, data }) => {
    const lines = data.split("\n").map((line) => `data: ${line}`);
    return [`id: ${id}`, `event: ${name}`, ...lines, "", ""].join(end);
  });
  const comments = [": open", "", ""].join(end);
  return new TextEncoder().encode(comments + blocks.join(`: keep-alive${end}${end}`));
}

/** What comes out when `bytes` come in pieces of so many. */
function parsed(bytes: Uint8Array, size: () => number): Frame[] {
  const parser = new FrameParser();
  const frames: Frame[] = [];
  for (let from = 0, to = 0; from < bytes.length; from = to) {
    to = from + size();
    frames.push(...parser.push(bytes.subarray(from, to)));
  }
  return frames;
}

for (const [name, end] of [["LF", "\n"], ["CR LF", "\r\n"]] as const) {
  test(`events are the same however they are cut, with ${name}`, () => {
    const bytes = written(end);
    assert.deepEqual(parsed(bytes, () => bytes.length), EVENTS);
    for (let size = 1; size < bytes.length; size++) {
      assert.deepEqual(parsed(bytes, () => size), EVENTS);
    }
    for (let round = 0; round < 100; round++) {
      assert.deepEqual(parsed(bytes, () => 1 + Math.floor(Math.random() * 20)), EVENTS);
    }
  });
}

test("what does not end with an empty line is no event, and one without data neither", () => {
  const parser = new FrameParser();
  const push = (text: string): Frame[] => parser.push(new TextEncoder().encode(text));
  assert.deepEqual(push("id: r:1\nevent: text\n\n"), []);
  assert.deepEqual(push("event: text\ndata: {}\n"), []);
  assert.deepEqual(push("\n"), [{ id: "r:1", name: "text", data: "{}" }]);
});

test("a field may lack its space, its colon and its meaning", () => {
  const text = "id:r:7\nevent:text\nretry: 5\nwhat\ndata:{}\n\n";
  const frames = new FrameParser().push(new TextEncoder().encode(text));
  assert.deepEqual(frames, [{ id: "r:7", name: "text", data: "{}" }]);
});
