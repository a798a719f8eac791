/** An event as it came: its id, its name, and its data as JSON. */
export interface Frame {
  id: string;
  name: string;
  data: string;
}

/**
 * Takes a stream of Server-Sent Events in pieces, and gives the events that came whole with each.
 * Lines end with LF or CR LF; what does not end with an empty line is no event.
 */
export class FrameParser {
  readonly #decoder = new TextDecoder();
  #rest: string[] = [];
  #frame: Frame = { id: "", name: "message", data: "" };
  #hasData = false;

  push(bytes: Uint8Array): Frame[] {
    const text = this.#decoder.decode(bytes, { stream: true });
    const frames: Frame[] = [];
    let from = 0;
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n", from)) {
      this.#line(this.#whole(text.slice(from, end)), frames);
      from = end + 1;
    }
    if (from < text.length) this.#rest.push(text.slice(from));
    return frames;
  }

  /** The line, with what earlier pieces had of it. */
  #whole(end: string): string {
    if (this.#rest.length) {
      end = this.#rest.join("") + end;
      this.#rest = [];
    }
    return end.endsWith("\r") ? end.slice(0, -1) : end;
  }

  #line(line: string, frames: Frame[]): void {
    if (line === "") return this.#end(frames);
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const start = line[colon + 1] === " " ? colon + 2 : colon + 1;
    this.#field(field, colon < 0 ? "" : line.slice(start));
  }

  #field(field: string, value: string): void {
    if (field === "id") this.#frame.id = value;
    else if (field === "event") this.#frame.name = value;
    else if (field === "data") {
      this.#frame.data += this.#hasData ? `\n${value}` : value;
      this.#hasData = true;
    }
  }

  #end(frames: Frame[]): void {
    if (this.#hasData) frames.push(this.#frame);
    this.#frame = { id: this.#frame.id, name: "message", data: "" };
    this.#hasData = false;
  }
}
