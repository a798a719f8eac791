import assert from "node:assert/strict";
import { test } from "node:test";
import { Blocks, type Block } from "../src/markdown/blocks.ts";
import { grammar } from "../src/markdown/grammar.ts";

const isMarker = (index: number): boolean => index >= 1 && index <= 12;
const html = (blocks: readonly Block[]): string =>
  blocks.map(({ open, parts, close }) => open + parts.join("") + close).join("");
const whole = (text: string): string => grammar().render(text, { isMarker });

function cutAt(text: string, places: readonly number[]): Blocks {
  const blocks = new Blocks({ isMarker });
  let from = 0;
  for (const place of places) {
    blocks.push(text.slice(from, place));
    from = place;
  }
  blocks.push(text.slice(from), true);
  return blocks;
}

const TEXTS: Record<string, string> = {
  paragraphs: "One **bold** word [1].\n\nAnother, with `[2]` in code\nand a line [12][3].\n\n\n   Third [99].",
  headings: "# One\nText\n## Two ##\n\nText\n- - -\n#nothing\n\nNo heading\n===\n\nNor this\n---\n",
  lists: "- a\n- b\n\n  more\n\n\n- c\n1. one\n2. two\n\n   in two\n\n3. three\n\ntext\n* x\n* * *\n+ y\n-\n",
  nested: "1. a\n   - b\n\n     ```js\n     let x = [1];\n     ```\n   - c\n2. d\n\n> quote\nlazy\n> - in it\n\n> other\n",
  tables: "| a | b |\n|---|:-:|\n| 1 [1] | 2 |\n| `|` | x |\nrest\n\ntext\n| a |\n| - |\n| 1 |\n\n| only |\n|---|\n",
  fences: "```py\na [1]\n\n# b\n~~~\n```\n\n~~~~\n```\n~~~\n~~~~\n\n    indented [1]\n\n    code\n\n````md\n```\nx\n",
  references: "See [one] and [1].\n\n[one]: https://example.org\n[1]: https://example.net 'Mine'\n\n[one]\n",
  links: "[a](https://example.org/x) <https://example.org> https://example.com/y?z. [b](javascript:alert(1)) [c [1]](https://e.org)\n",
  images: "![alt [1]](https://example.org/p.png) ![](http://e.org/q) ![x](data:image/png;base64,AA) [![in](https://a.org/b)](https://c.org)\n",
  html: "<script>alert(1)</script>\n\n<div onclick=x>\n\n**b**\n</div>\n\na <img src=x onerror=alert(1)> b &amp; &lt;\n",
  ends: "a\r\nb\r\n\r\n- c\r\n- d\r\rtext\r\n```\r\nx\r\n```\r",
  dashes: "text\n-\n- a\n--\n---\ntext\n1\n1.\n1. b\n=\n==\ntext",
};

for (const [name, text] of Object.entries(TEXTS)) {
  test(`${name}: rendered as at once, wherever the text is cut`, () => {
    const wanted = whole(text);
    assert.equal(html(cutAt(text, []).finished), wanted);
    for (let place = 0; place <= text.length; place += 1) {
      assert.equal(html(cutAt(text, [place]).finished), wanted, `cut at ${place}`);
    }
    const each = Array.from(text, (_, at) => at);
    assert.equal(html(cutAt(text, each).finished), wanted, "cut everywhere");
  });
}

test("all texts after one another: rendered as at once, with what is unfinished on the way", () => {
  const text = Object.values(TEXTS).join("\n\n");
  const wanted = whole(text);
  const blocks = new Blocks({ isMarker });
  let finished = "";
  for (const sign of text) {
    blocks.push(sign);
    const now = html(blocks.finished);
    // What is finished stays, and is how the whole begins.
    assert.ok(now.startsWith(finished) && wanted.startsWith(now));
    assert.ok(blocks.unfinished.length <= 3);
    finished = now;
  }
  blocks.push("", true);
  assert.equal(html(blocks.finished), wanted);
});

test("a line that is not decided yet is not shown", () => {
  const blocks = new Blocks();
  blocks.push("Three things:\n-");
  assert.equal(html(blocks.unfinished), "<p>Three things:</p>\n");
  blocks.push(" one");
  assert.equal(html(blocks.unfinished), "<p>Three things:</p>\n<ul>\n<li>one</li>\n</ul>\n");
});

test("a list grows by its last item", () => {
  const blocks = new Blocks();
  blocks.push("- one\n- two");
  assert.deepEqual(blocks.unfinished, [
    { open: "<ul>\n", parts: ["<li>one</li>\n", "<li>two</li>\n"], close: "</ul>\n" },
  ]);
});

test("markers are those of known sources outside of code, and go before links", () => {
  const marked = (index: number): string =>
    `<button type="button" class="marker" data-source="${index}">${index}</button>`;
  assert.equal(
    whole("A [1]. `[1]` [13] [c [1]](https://e.org) [2](https://e.org)"),
    `<p>A ${marked(1)}. <code>[1]</code> [13] ` +
      `[c ${marked(1)}](<a href="https://e.org" target="_blank" rel="noopener noreferrer">https://e.org</a>) ` +
      `${marked(2)}(<a href="https://e.org" target="_blank" rel="noopener noreferrer">https://e.org</a>)</p>\n`,
  );
});

test("nothing leads anywhere but to http, https and mail, and pictures are links", () => {
  assert.equal(
    whole("[x](/projects/1) [y](#/providers) [z](data:text/html,x) ![A](//e.org/a) ![B](https://e.org/b)"),
    "<p>[x](/projects/1) [y](#/providers) [z](data:text/html,x) ![A](//e.org/a) " +
      '<a href="https://e.org/b" target="_blank" rel="noopener noreferrer">Picture: B</a> ' +
      '<span class="host">(e.org)</span></p>\n',
  );
});

test("a link says where it leads, unless its text is that very address", () => {
  const host = /<span class="host">\((.*?)\)<\/span>/;
  const told = (text: string): string | undefined => host.exec(whole(text))?.[1];
  assert.equal(told("https://example.org/x"), undefined);
  assert.equal(told("[https://example.org/x](https://example.org/y)"), undefined);
  assert.equal(told("[words](https://example.org)"), "example.org");
  assert.equal(told("[example.org](https://example.org)"), "example.org");
  assert.equal(told("[https://example.org/?example.net](https://example.net)"), "example.net");
  assert.equal(told("[https://example.org@example.net](https://example.org)"), "example.org");
});
