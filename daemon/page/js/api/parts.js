// The parts of a multipart body as they come. Every part has a Content-Length, so no body is searched for the boundary.

const MOST_BYTES = 32 * 1024 * 1024;
const END_OF_HEAD = [13, 10, 13, 10];

/** Cuts chunks of bytes into parts. */
export class Parts {
  #bytes = new Uint8Array(256 * 1024);
  #size = 0;

  /**
   * Takes a chunk; returns the parts that are complete with it.
   * @param {Uint8Array} chunk
   * @returns {{type: string, body: Uint8Array}[]} Each body is a copy.
   */
  push(chunk) {
    this.#append(chunk);
    const parts = [];
    let at = 0;
    for (;;) {
      const end = find(this.#bytes, END_OF_HEAD, at, this.#size);
      if (end < 0) break;
      const { type, length } = head(this.#bytes.subarray(at, end));
      const begin = end + END_OF_HEAD.length;
      if (length > MOST_BYTES) throw new Error(`a part of ${length} bytes`);
      if (begin + length > this.#size) break;
      parts.push({ type, body: this.#bytes.slice(begin, begin + length) });
      at = begin + length;
    }
    this.#bytes.copyWithin(0, at, this.#size);
    this.#size -= at;
    return parts;
  }

  #append(chunk) {
    const size = this.#size + chunk.length;
    if (size > MOST_BYTES) throw new Error("a body without parts");
    if (size > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(size, this.#bytes.length * 2));
      larger.set(this.#bytes.subarray(0, this.#size));
      this.#bytes = larger;
    }
    this.#bytes.set(chunk, this.#size);
    this.#size = size;
  }
}

function find(bytes, pattern, from, size) {
  for (let at = bytes.indexOf(pattern[0], from); at >= 0 && at + pattern.length <= size; at = bytes.indexOf(pattern[0], at + 1)) {
    if (pattern.every((byte, index) => bytes[at + index] === byte)) return at;
  }
  return -1;
}

function head(bytes) {
  const fields = new Map();
  for (const line of new TextDecoder().decode(bytes).split("\r\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) fields.set(line.slice(0, colon).trim().toLowerCase(), line.slice(colon + 1).trim());
  }
  const length = Number(fields.get("content-length"));
  if (!fields.has("content-length") || !Number.isSafeInteger(length) || length < 0) throw new Error("a part without its length");
  return { type: fields.get("content-type") ?? "", length };
}
