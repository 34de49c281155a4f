// Which events are shown: of one camera, of faces with one attribute.
import { h } from "../ui/dom.js";
import { LABELS, title } from "../ui/words.js";

const DECADES = [0, 10, 20, 30, 40, 50, 60, 70];
const OLDEST = 120;

/** Two choices; `changed` is called after each. */
export class Filters {
  #camera = h("select", { "aria-label": "Camera" });
  #face = h("select", { "aria-label": "Faces" });
  element = h("div.filters", {}, this.#camera, this.#face);

  constructor(changed) {
    this.#camera.append(h("option", { value: "" }, "all cameras"));
    this.#face.append(h("option", { value: "" }, "all faces"), ages(), ...Object.entries(LABELS).map(choices));
    for (const select of [this.#camera, this.#face]) select.addEventListener("change", changed);
  }

  /** The camera that was chosen; empty for all. */
  get camera() {
    return this.#camera.value;
  }

  get active() {
    return this.#camera.value !== "" || this.#face.value !== "";
  }

  /** Offers these cameras. */
  cameras(names) {
    const offered = [...this.#camera.options].slice(1).map((option) => option.value);
    if (offered.join("\n") === names.join("\n")) return;
    const chosen = this.camera;
    if (chosen && !names.includes(chosen)) names = [...names, chosen]; // its events are still there
    const options = names.map((name) => h("option", { value: name }, name));
    this.#camera.replaceChildren(this.#camera.options[0], ...options);
    this.#camera.value = chosen;
  }

  /** The choices as pairs of a query. */
  pairs() {
    return [["camera", this.#camera.value], ["attribute", this.#face.value]];
  }

  /** Whether an event fits, by the rules of the API. */
  match(event) {
    if (this.camera && event.camera !== this.camera) return false;
    if (!this.#face.value) return true;
    const [name, wanted] = this.#face.value.split(":");
    const value = event.face.attributes[name]?.value;
    if (!wanted.includes("..")) return value === wanted;
    const [least, most] = wanted.split("..").map(Number);
    return value >= least && value <= most;
  }
}

function ages() {
  const groups = DECADES.map((from, index) => {
    const to = DECADES[index + 1] === undefined ? OLDEST : from + 9.9;
    const text = to === OLDEST ? `${from} and older` : from === 0 ? "younger than 10" : `${from} to ${from + 9}`;
    return h("option", { value: `age:${from}..${to}` }, text);
  });
  return h("optgroup", { label: "about as old as" }, ...groups);
}

function choices([name, labels]) {
  const text = (label) => (label === "none" ? `no ${title(name)}` : label);
  return h("optgroup", { label: title(name) }, ...labels.map((label) => h("option", { value: `${name}:${label}` }, text(label))));
}
