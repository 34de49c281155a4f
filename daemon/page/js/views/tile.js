// A camera of the grid: its picture with boxes, and how it is.
import { h, mark, say } from "../ui/dom.js";
import { Screen } from "../ui/screen.js";
import { clock, delay } from "../ui/times.js";
import { count, inTrouble, nextTry, noFace, stateWords } from "../ui/words.js";

// A camera whose faces are known so late is more than its machine can do.
const LATE_MS = 5000;

/** The lines for a camera that sends no picture; empty for one that does. */
export function troubleLines(camera) {
  if (inTrouble(camera)) return [camera.error, `Since ${clock(camera.trouble_since ?? camera.since)}, ${nextTry(camera)}.`];
  if (camera.state === "streaming") return [];
  return [`${STATES[camera.state] ?? camera.state} since ${clock(camera.since)}.`];
}

const STATES = { connecting: "Connecting", waiting: "Waiting for the next try", ended: "The recording has been over", stopped: "Stopped" };

// Why a camera is analysed less than configured.
const REDUCED = { idle: ", idle", overload: ", reduced: too much to do" };

/** How fast and how fresh a camera's analysis is. */
export function paceWords(camera) {
  const reduced = REDUCED[camera.reduced] ?? "";
  const fps = camera.analysed_fps === undefined ? null : `${camera.analysed_fps.toFixed(1)} fps${reduced}`;
  const age = camera.age_ms === null || camera.age_ms === undefined ? null : delay(camera.age_ms);
  return { fps, age, late: camera.age_ms > LATE_MS };
}

/** A tile; `element` carries the camera's name for the observer of what is in view. */
export class Tile {
  #screen;
  #name;
  #state = h("span.badge");
  #fps = h("span.number", { title: "frames analysed a second" });
  #age = h("span.number", { title: "from the picture's capture until its faces were known" });
  #faces = h("span");
  #camera = null;

  constructor(name) {
    this.#screen = new Screen(`Picture of ${name}`);
    const link = h("a", { href: `#/camera/${encodeURIComponent(name)}`, title: name }, name);
    this.#name = h("h3", {}, link);
    this.element = h(
      "li.tile",
      {},
      this.#screen.element,
      h("div.tile-foot", {}, this.#name, this.#state, h("p.small.quiet", {}, this.#fps, this.#age, this.#faces)),
    );
    this.element.camera = name;
  }

  /** Width of the picture in pixels of the display. */
  get width() {
    return this.#screen.element.clientWidth * devicePixelRatio;
  }

  /** Shows how the camera is; `note` says why there are no pictures of any. */
  update(camera, note) {
    this.#camera = camera;
    const trouble = inTrouble(camera);
    const live = camera.state === "streaming" && !trouble;
    this.element.classList.toggle("trouble", trouble);
    say(this.#state, stateWords(camera));
    mark(this.#state, "class", trouble ? "badge bad" : live ? "badge good" : "badge");
    const { fps, age, late } = live ? paceWords(camera) : {};
    say(this.#fps, fps ?? "");
    say(this.#age, age ?? "");
    this.#age.classList.toggle("bad", Boolean(late));
    say(this.#faces, live && camera.tracks ? count(camera.tracks, "face") : noFace(camera));
    const lines = troubleLines(camera);
    if (!lines.length && note) lines.push(note);
    if (!lines.length && !this.#screen.document) lines.push("Waiting for its first picture …");
    this.#screen.say(...lines);
    this.#screen.describe(`Picture of ${camera.camera}: ${count(camera.tracks ?? 0, "face")}`);
  }

  /** Shows a picture of the camera. */
  async show(document, blob) {
    if (!(await this.#screen.show(document, blob))) return;
    if (this.#camera) this.update(this.#camera, null);
  }
}
