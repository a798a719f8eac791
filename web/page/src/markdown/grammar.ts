import MarkdownIt, { type RendererRule, type StateInline } from "markdown-it";

/** What a text is read with; `isMarker` tells which numbers in brackets stand for sources. */
export type Reading = {
  isMarker?: ((index: number) => boolean) | undefined;
  /** Whether all headings are of the third level, since the text is a part of something else. */
  isPart?: boolean | undefined;
};

type Tokens = Parameters<RendererRule>[0];

/** Where a link may lead. A path of ours is none of a model's business. */
const LINK = /^(?:https?:\/\/|mailto:)[^\s]/i;
const MARKER = /\[(\d{1,16})\]/y;

/** What reads and renders Markdown. */
export type Grammar = InstanceType<typeof MarkdownIt>;

/** Markdown as models write it: without HTML, without remote images, with `[n]` for sources. */
export function grammar(): Grammar {
  const md = new MarkdownIt("default", { html: false, linkify: true });
  md.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false });
  // A definition at the end would change what was rendered before it, and take `[1]` for itself.
  // Underlined headings make each list after a paragraph a heading for a moment.
  md.disable(["reference", "lheading"]);
  md.validateLink = (address) => LINK.test(address);
  md.inline.ruler.before("link", "marker", marker);
  Object.assign(md.renderer.rules, RULES);
  return md;
}

function marker(state: StateInline, silent: boolean): boolean {
  MARKER.lastIndex = state.pos;
  const [whole, digits] = MARKER.exec(state.src) ?? [];
  if (!whole || !(state.env as Reading).isMarker?.(Number(digits))) return false;
  if (!silent) state.push("marker", "", 0).content = String(Number(digits));
  state.pos += whole.length;
  return true;
}

const RULES: Record<string, RendererRule> = {
  marker: (tokens, at) => {
    const index = tokens[at]!.content;
    return `<button type="button" class="marker" data-source="${index}">${index}</button>`;
  },

  link_open: (tokens, at) => opened(String(tokens[at]!.attrGet("href"))),

  link_close: (tokens, at) => {
    const start = openOf(tokens, at);
    const host = hostOf(String(tokens[start]!.attrGet("href")));
    const shown = tokens.slice(start, at).map(({ content }) => content).join("").trim();
    // Only an address says itself where it leads: words may name any host.
    return `</a>${LINK.test(shown) && hostOf(shown) === host ? "" : named(host)}`;
  },

  // Loaded, it would tell its server who reads what.
  image: (tokens, at, options, env, renderer) => {
    const { children, content } = tokens[at]!;
    const alt = renderer.renderInlineAsText(children ?? [], options, env).trim() || content.trim();
    const words = escaped(alt ? `Picture: ${alt}` : "Picture");
    const address = String(tokens[at]!.attrGet("src"));
    if (!LINK.test(address) || isLinked(tokens, at)) return words;
    return `${opened(address)}${words}</a>${named(hostOf(address))}`;
  },

  fence: (tokens, at) => code(tokens[at]!.content, tokens[at]!.info.trim().split(/\s+/)[0] ?? ""),
  code_block: (tokens, at) => code(tokens[at]!.content, ""),

  heading_open: (tokens, at, _options, env) =>
    `<${heading(tokens[at]!.tag, env)} class="${tokens[at]!.tag}">`,
  heading_close: (tokens, at, _options, env) => `</${heading(tokens[at]!.tag, env)}>\n`,

  // The policy of the page takes no styles that stand in the text.
  th_open: cell,
  td_open: cell,

  table_open: () => '<div class="table" role="group" aria-label="Table" tabindex="0"><table>\n',
  table_close: () => "</table></div>\n",
};

function heading(tag: string, env: unknown): string {
  return (env as Reading | undefined)?.isPart ? "h3" : tag;
}

function cell(tokens: Tokens, at: number): string {
  const side = /center|right/.exec(String(tokens[at]!.attrGet("style")))?.[0];
  return `<${tokens[at]!.tag}${side ? ` class="${side}"` : ""}>`;
}

function code(content: string, language: string): string {
  const name = language ? `<span class="language">${escaped(language)}</span>` : "";
  const copy = '<button type="button" class="copy">Copy</button>';
  const label = escaped(language ? `Code, ${language}` : "Code");
  const text = `<pre tabindex="0" role="group" aria-label="${label}"><code>${escaped(content)}</code></pre>`;
  return `<div class="code"><div class="bar">${name}${copy}</div>${text}</div>\n`;
}

function opened(address: string): string {
  return `<a href="${escaped(address)}" target="_blank" rel="noopener noreferrer">`;
}

function named(host: string): string {
  return ` <span class="host">(${escaped(host)})</span>`;
}

function hostOf(address: string): string {
  const { host, pathname, protocol } = URL.parse(address) ?? {};
  return (protocol === "mailto:" ? pathname : host) || address;
}

function openOf(tokens: Tokens, at: number): number {
  while (tokens[at]!.type !== "link_open") at -= 1;
  return at;
}

function isLinked(tokens: Tokens, at: number): boolean {
  const last = tokens.slice(0, at).findLast(({ type }) => /^link_/.test(type));
  return last?.type === "link_open";
}

const ENTITIES: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (sign) => ENTITIES[sign]!);
}
