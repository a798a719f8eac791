import type { CitationEntry, SourceChunk } from "archwright-client";

/** A passage that an answer may stand on; what is only known of a citation may be missing. */
export interface Source {
  index: number;
  chunkId: string;
  documentId: string | null;
  documentName: string;
  pageNumber: number | null;
  /** What the service knows of a marker once the answer is complete. */
  cited?: { quote: string; supported: boolean; by: "model" | "service" } | undefined;
}

/** All sources of an answer by their numbers: those that it was given, else those that it cites. */
export function sourcesOf(
  chunks: readonly SourceChunk[] | null,
  citations: readonly CitationEntry[],
): Source[] {
  const cited = new Map(citations.map((citation) => [citation.index, citation]));
  if (!chunks) return citations.map((citation) => ({ ...citation, cited: citation }));
  return chunks.map((chunk, at) => ({
    index: at + 1,
    chunkId: chunk.id,
    documentId: chunk.documentId,
    documentName: chunk.documentName,
    pageNumber: chunk.pageNumber,
    cited: cited.get(at + 1),
  }));
}

/** `handbook.pdf, page 3`. */
export function placeOf({ documentName, pageNumber }: Source): string {
  return pageNumber === null ? documentName : `${documentName}, page ${pageNumber}`;
}

/** `Source 2, handbook.pdf, page 3`, with what the check found. */
export function nameOf(source: Source): string {
  const { cited } = source;
  const parts = [
    `Source ${source.index}`,
    placeOf(source),
    cited?.by === "service" && "added by the service",
    cited?.supported === false && "not borne out",
  ];
  return parts.filter(Boolean).join(", ");
}

/** A piece of a passage: `part` says whether it is around the passage, in it, or quoted. */
export interface Piece {
  part: "around" | "passage" | "quote";
  text: string;
}

/** A passage in its context, with the words that are quoted of it. */
export function pieces(context: string, snippet: string, quote = ""): Piece[] {
  const [before, passage, after] = split(context, snippet) ?? ["", snippet, ""];
  const [start, quoted, end] = split(passage, quote) ?? [passage, "", ""];
  const all: Piece[] = [
    { part: "around", text: before },
    { part: "passage", text: start },
    { part: "quote", text: quoted },
    { part: "passage", text: end },
    { part: "around", text: after },
  ];
  return all.filter(({ text }) => text !== "");
}

/** What is before, what is, and what is behind a text, whose white space may differ. */
function split(whole: string, wanted: string): [string, string, string] | undefined {
  const words = wanted.trim().split(/\s+/);
  if (!words[0]) return undefined;
  const escaped = words.map((word) => word.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
  const found = new RegExp(escaped.join("\\s+")).exec(whole);
  if (!found) return undefined;
  const end = found.index + found[0].length;
  return [whole.slice(0, found.index), found[0], whole.slice(end)];
}
