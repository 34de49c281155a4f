// Live pictures of several cameras in one answer: browsers open six connections to a server at most.
import { query, request } from "./client.js";
import { Parts } from "./parts.js";
import { chunks, Kept } from "./retry.js";

const QUIET_S = 60; // cameras may be slow, or all be broken: then nothing comes, and asking again does no harm

/** Pictures of the cameras that are watched, each with what was found in it. */
export class Live {
  #kept;
  #runs = false;
  #wanted = "";
  #address = "";

  /**
   * @param {(document: object, picture: Blob) => void} shown
   * @param {(error: Error|null) => void} told Why there are no pictures; null once there are.
   */
  constructor(shown, told) {
    this.#kept = new Kept(
      async (signal, worked) => {
        const response = await request(this.#address, { signal });
        told(null);
        const parts = new Parts();
        let document = null;
        for await (const chunk of chunks(response, QUIET_S)) {
          for (const { type, body } of parts.push(chunk)) {
            worked();
            if (type.startsWith("application/json")) document = JSON.parse(new TextDecoder().decode(body));
            else if (document) shown(document, new Blob([body], { type }));
          }
        }
      },
      (error) => told(error),
    );
  }

  /** Watches these cameras and no others; none closes the connection. */
  watch(cameras, width, fps) {
    const list = [...cameras].sort().join(",");
    this.#wanted = list && query("v1/live", [["cameras", list], ["width", width], ["fps", fps]]);
    this.#apply();
  }

  start() {
    this.#runs = true;
    this.#apply();
  }

  stop() {
    this.#runs = false;
    this.#apply();
  }

  hurry() {
    this.#kept.hurry();
  }

  #apply() {
    const address = this.#runs ? this.#wanted : "";
    if (address === this.#address) return;
    this.#kept.stop();
    this.#address = address;
    if (address) this.#kept.start();
  }
}
