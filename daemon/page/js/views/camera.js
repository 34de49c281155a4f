// One camera, large: its picture, its faces, its times, and what programs get of it.
import { Stack } from "../ui/bars.js";
import { command, copyButton, h, mark, say } from "../ui/dom.js";
import { FaceList } from "../ui/face.js";
import { Screen } from "../ui/screen.js";
import { delay } from "../ui/times.js";
import { count, inTrouble, noFace, stateWords } from "../ui/words.js";
import { pointsChoice } from "../ui/points.js";
import { paceWords, troubleLines } from "./tile.js";
import { step } from "./grid.js";

const FPS = 10;
const CARDS_MS = 250; // faces are read by people: four times a second is enough for the bars

/** The view of a camera. */
export class CameraView {
  #state;
  #name;
  #title = h("h2", { tabindex: -1 });
  #badge = h("span.badge");
  #pace = h("p.quiet.facts");
  #screen;
  #faces = new FaceList();
  #timing = new Stack();
  #source = h("p.small.quiet.wrap");
  #json = h("pre.json", { tabindex: 0 });
  #note = null;
  #drawnAt = 0;
  element;

  constructor(state, name) {
    this.#state = state;
    this.#name = name;
    this.#screen = new Screen(`Picture of ${name}`);
    this.#screen.element.classList.add("large");
    say(this.#title, name);
    const points = pointsChoice((chosen) => {
      this.#screen.boxes.points = chosen;
      this.#screen.redraw();
    });
    this.element = h(
      "section.camera",
      { "aria-label": `Camera ${name}` },
      h("div.heading", {}, h("a.back", { href: "#/" }, "← All cameras"), this.#title, this.#badge, this.#pace),
      h("div.main", {}, this.#screen.element, h("div.row", {}, points, this.#links())),
      h("section.side", { "aria-label": "Faces" }, h("h3.heading3", {}, "Faces now"), this.#faces.element),
      h("div.more", {}, this.#source, this.#timing.element, this.#programs()),
    );
    this.#timing.element.hidden = true;
  }

  focus() {
    this.#title.focus();
  }

  /** What to ask for: the names, the width and the rate of pictures. */
  get wanted() {
    const names = this.#state.cameras.has(this.#name) ? [this.#name] : [];
    return [names, step(this.#screen.element.clientWidth * devicePixelRatio), FPS];
  }

  update() {
    const camera = this.#state.cameras.get(this.#name);
    if (!camera) {
      const gone = (where) => `There is no camera ${this.#name} ${where}any more.`;
      if (this.#state.node?.fleet) this.#screen.say(gone("on this node "), "Another node of the fleet may have it now.");
      else this.#screen.say(gone(""));
      say(this.#badge, "");
      return;
    }
    this.element.classList.toggle("trouble", inTrouble(camera));
    say(this.#badge, stateWords(camera));
    mark(this.#badge, "class", inTrouble(camera) ? "badge bad" : camera.state === "streaming" ? "badge good" : "badge");
    const { fps, age } = camera.state === "streaming" ? paceWords(camera) : {};
    const wanted = camera.fps ? ` of ${camera.fps} wanted` : "";
    say(this.#pace, [fps && `${fps}${wanted}`, age && `${age} from capture to faces`, count(camera.tracks ?? 0, "face")].filter(Boolean).join("  ·  "));
    const stream = camera.codec ? `${camera.codec}, ${camera.width} × ${camera.height} px` : null;
    const again = camera.reconnects ? `opened again ${count(camera.reconnects, "time")}` : null;
    say(this.#source, [camera.source, stream, again].filter(Boolean).join("  ·  "));
    const lines = troubleLines(camera);
    if (!lines.length && this.#note) lines.push(this.#note);
    if (!lines.length && !this.#screen.document) lines.push("Waiting for its first picture …");
    this.#screen.say(...lines);
    if (lines.length || !camera.tracks) this.#faces.show(this.#screen, [], noFace(camera));
  }

  refresh() {
    this.update();
  }

  note(text) {
    this.#note = text;
    this.update();
  }

  async show(document, blob) {
    if (document.camera !== this.#name || !(await this.#screen.show(document, blob))) return;
    const now = performance.now();
    if (now - this.#drawnAt < CARDS_MS) return;
    this.#drawnAt = now;
    const shown = this.#screen.document;
    const camera = this.#state.cameras.get(this.#name);
    this.#screen.describe(`Picture of ${this.#name}: ${count(shown.faces.length, "face")}`);
    this.#faces.show(this.#screen, shown.faces, camera ? noFace(camera) : "");
    this.#times(shown);
    this.update();
    if (!this.#json.textContent) this.#takeMessage();
  }

  close() {}

  #times({ timing_ms: timing, age_ms: age }) {
    const known = Object.values(timing).reduce((sum, ms) => sum + ms, 0);
    this.#timing.element.hidden = false;
    this.#timing.show({ ...timing, other: Math.max(0, age - known) }, `${delay(age)} from capture to faces`);
  }

  #links() {
    const path = `v1/cameras/${encodeURIComponent(this.#name)}`;
    return h(
      "p.links",
      {},
      h("a", { href: `${path}/snapshot.jpg`, target: "_blank", rel: "noopener" }, "snapshot.jpg"),
      h("a", { href: `${path}/live.mjpeg`, target: "_blank", rel: "noopener" }, "live.mjpeg"),
    );
  }

  #programs() {
    const { broker, prefix } = this.#state.node.mqtt;
    const [, host, port] = /^(.*):(\d+)$/.exec(broker) ?? [null, broker, "1883"];
    const again = h("button", { type: "button", onclick: () => this.#takeMessage() }, "Take the newest");
    return h(
      "details.programs",
      { ontoggle: () => this.#takeMessage() },
      h("summary", {}, "For programs: messages and commands"),
      h("p", {}, "Every analysed frame, by MQTT:"),
      command(`mosquitto_sub -h ${host.replace(/[[\]]/g, "")} -p ${port} -t '${prefix}/${this.#name}/faces'`),
      h("p", {}, "When a face comes, is better known, and goes:"),
      command(`mosquitto_sub -h ${host.replace(/[[\]]/g, "")} -p ${port} -t '${prefix}/${this.#name}/events'`),
      h("div.row", {}, h("p", {}, "What was found in one frame:"), copyButton("Copy", () => this.#json.textContent), again),
      this.#json,
    );
  }

  #takeMessage() {
    if (!this.#screen.document) return;
    const { picture, ...message } = this.#screen.document;
    say(this.#json, JSON.stringify(message, null, 1).replace(/\[\s+([-\d.,\s]+?)\s+\]/g, (_, numbers) => `[${numbers.replace(/\s+/g, " ")}]`));
  }
}
