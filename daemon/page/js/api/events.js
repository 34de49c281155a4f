// Events as they come. By fetch, not EventSource: that tells neither why a connection was refused nor that it is quiet.
import { request } from "./client.js";
import { chunks, Kept } from "./retry.js";

const QUIET_S = 40; // a comment comes every 15 s

/** Cuts a text of Server-Sent Events into messages. */
export class Messages {
  #rest = "";

  /** Takes a piece of text; returns the messages that are complete with it. */
  push(text) {
    const blocks = (this.#rest + text).replaceAll("\r\n", "\n").split("\n\n");
    this.#rest = blocks.pop();
    return blocks.map(message).filter((one) => one.data !== "");
  }
}

function message(block) {
  const found = { event: "message", data: "", id: null };
  for (const line of block.split("\n")) {
    const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line) ?? [];
    if (field === "data") found.data += (found.data && "\n") + value;
    else if (field === "event" || field === "id") found[field] = value;
  }
  return found;
}

/** The stream of events and states. After a pause it goes on with the first event that was missed. */
export class Events {
  #kept;
  #last = null;

  /**
   * @param {{face: Function, camera: Function, removed: Function, gap: Function}} handlers By kind of message.
   * @param {() => void} opened The stream is there.
   * @param {(error: Error, seconds: number) => void} lost It is not, and when it is tried again.
   */
  constructor(handlers, opened, lost) {
    this.#kept = new Kept(async (signal, worked) => {
      const headers = this.#last ? { "Last-Event-ID": this.#last } : {};
      const response = await request("v1/events/stream", { signal, headers });
      worked();
      opened();
      const messages = new Messages();
      const decoder = new TextDecoder();
      for await (const chunk of chunks(response, QUIET_S)) {
        for (const { event, data, id } of messages.push(decoder.decode(chunk, { stream: true }))) {
          if (id) this.#last = id;
          handlers[event]?.(JSON.parse(data));
        }
      }
    }, lost);
  }

  /** Whether a new start goes on after what came before, so that nothing is missed. */
  get resumes() {
    return this.#last !== null;
  }

  start() {
    this.#kept.start();
  }

  stop() {
    this.#kept.stop();
  }

  hurry() {
    this.#kept.hurry();
  }
}
