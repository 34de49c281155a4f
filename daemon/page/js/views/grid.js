// All cameras, those in trouble first. Only the pictures of those in view are asked for.
import { h, mark, say } from "../ui/dom.js";
import { inTrouble } from "../ui/words.js";
import { noCamera, noCameraHere } from "../ui/none.js";
import { Tile } from "./tile.js";

const FPS = 5;

/** The grid; `watch(names, width, fps)` is called when other cameras come into view. */
export class Grid {
  #state;
  #watch;
  #tiles = new Map();
  #inView = new Set();
  #note = null;
  #list = h("ul.grid");
  #none = noCamera();
  #spare = noCameraHere();
  #title = h("h2", { id: "cameras" }, "Cameras");
  element = h("section.cameras", { "aria-labelledby": "cameras" }, this.#title, this.#list, this.#none, this.#spare);
  #observer = new IntersectionObserver((entries) => this.#seen(entries), { rootMargin: "100px" });

  constructor(state, watch) {
    this.#state = state;
    this.#watch = watch;
    addEventListener("resize", () => this.#ask());
  }

  /** Brings the tiles in line with the cameras. */
  update() {
    const { cameras } = this.#state;
    for (const [name, tile] of this.#tiles) if (!cameras.has(name)) this.#remove(name, tile);
    for (const name of cameras.keys()) if (!this.#tiles.has(name)) this.#add(name);
    this.#list.hidden = cameras.size === 0;
    const fleet = Boolean(this.#state.node?.fleet);
    this.#none.hidden = cameras.size > 0 || fleet;
    this.#spare.hidden = cameras.size > 0 || !fleet;
    if (fleet) say(this.#title, "Cameras of this node");
    mark(this.#list, "data-columns", cameras.size === 1 ? 1 : cameras.size <= 4 ? 2 : cameras.size <= 9 ? 3 : 4);
    this.#sort();
    this.refresh();
  }

  /** Says how the cameras are; called every second too, for what counts down. */
  refresh() {
    for (const [name, tile] of this.#tiles) tile.update(this.#state.cameras.get(name), this.#note);
  }

  /** Shows a picture of one of the cameras. */
  show(document, blob) {
    return this.#tiles.get(document.camera)?.show(document, blob);
  }

  /** Says why there are no pictures of any camera; null if there are. */
  note(text) {
    this.#note = text;
    this.refresh();
  }

  #add(name) {
    const tile = new Tile(name);
    this.#tiles.set(name, tile);
    this.#list.append(tile.element);
    this.#observer.observe(tile.element);
  }

  #remove(name, tile) {
    this.#observer.unobserve(tile.element);
    tile.element.remove();
    this.#tiles.delete(name);
    if (this.#inView.delete(name)) this.#ask();
  }

  #sort() {
    const names = [...this.#tiles.keys()];
    const rank = (name) => (inTrouble(this.#state.cameras.get(name)) ? 0 : 1);
    const order = [...this.#state.cameras.keys()];
    names.sort((a, b) => rank(a) - rank(b) || order.indexOf(a) - order.indexOf(b));
    // Only what stands at another place is moved: moving an element takes the focus from it.
    names.forEach((name, index) => {
      const tile = this.#tiles.get(name).element;
      if (this.#list.children[index] !== tile) this.#list.insertBefore(tile, this.#list.children[index] ?? null);
    });
  }

  #seen(entries) {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) this.#inView.add(target.camera);
      else this.#inView.delete(target.camera);
    }
    this.#ask();
  }

  #ask() {
    const tiles = [...this.#inView].map((name) => this.#tiles.get(name)).filter(Boolean);
    if (!this.element.offsetParent && tiles.length) return; // another view is shown
    this.#watch([...this.#inView], step(Math.max(0, ...tiles.map((tile) => tile.width))), FPS);
  }
}

/** The width to ask for: the server's own steps, so that a window that is drawn wider does not ask at every pixel. */
export function step(width) {
  return [320, 480, 640, 960, 1280, 1920].find((one) => one >= width) ?? 1920;
}
