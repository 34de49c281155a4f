// The first view: cameras, what happened, numbers, and a place for a picture.
import { h } from "../ui/dom.js";
import { Grid } from "./grid.js";
import { Happened } from "./happened.js";
import { Numbers } from "./numbers.js";
import { dropZone } from "./picture.js";

/** The first view; it stays in the page while others are shown, so that coming back is instant. */
export class Home {
  #grid;
  #happened;
  #numbers;
  element;

  /**
   * @param {State} state
   * @param {(names: string[], width: number, fps: number) => void} watch
   * @param {(file: File) => void} taken
   */
  constructor(state, watch, taken) {
    this.#grid = new Grid(state, watch);
    this.#happened = new Happened(state);
    this.#numbers = new Numbers(state);
    const below = h("div.below", {}, this.#numbers.element, dropZone(taken));
    this.element = h("div.home", {}, this.#grid.element, this.#happened.element, below);
    state.addEventListener("face", ({ detail }) => {
      this.#happened.add(detail);
      if (detail.event === "begin") this.#numbers.soon();
    });
  }

  /** Asks for what happened and for the numbers. */
  load() {
    this.#happened.load();
    this.#numbers.load();
  }

  /** Asks for the numbers alone; what happened comes by the stream. */
  resume() {
    this.#numbers.load();
  }

  /** Asks for nothing more by itself. */
  stop() {
    this.#numbers.stop();
  }

  update() {
    this.#grid.update();
    this.#happened.update();
    this.#numbers.update();
  }

  refresh() {
    this.#grid.refresh();
    this.#happened.refresh();
  }

  note(text) {
    this.#grid.note(text);
  }

  show(document, blob) {
    return this.#grid.show(document, blob);
  }

  focus() {
    document.getElementById("main").focus();
  }

  close() {}
}
