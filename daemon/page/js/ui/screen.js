// A picture with boxes over it, or words where there is none.
import { Boxes } from "./boxes.js";
import { h, mark } from "./dom.js";

/** Shows the newest picture of a camera, or one picture. */
export class Screen {
  boxes = new Boxes();
  #canvas = h("canvas", { role: "img" });
  #shot = h("div.shot", {}, this.#canvas, ...this.boxes.elements);
  #words = h("div.words");
  element = h("div.screen.blank", {}, this.#shot, this.#words);
  #context = this.#canvas.getContext("2d");
  #waiting = null;
  #busy = false;
  #scale = [1, 1];
  /** What is shown: the document of the picture; null before the first. */
  document = null;

  constructor(name) {
    this.name = name;
    mark(this.#canvas, "aria-label", name);
    this.#shot.hidden = true;
  }

  /**
   * Shows a picture as soon as it is decoded; of several that wait, the newest.
   * @param {object} document With `frame` (width, height, pixel_aspect) and `faces`.
   * @returns {Promise<boolean>} Whether a picture is shown now; throws if the browser cannot decode it.
   */
  async show(document, blob) {
    this.#waiting = [document, blob];
    if (this.#busy) return false;
    this.#busy = true;
    try {
      while (this.#waiting) {
        const [next, picture] = this.#waiting;
        this.#waiting = null;
        this.#paint(next, await createImageBitmap(picture));
      }
    } finally {
      this.#busy = false;
    }
    return true;
  }

  /** Shows words instead of the picture, or over its last one; an empty list shows the picture alone. */
  say(...lines) {
    const old = [...this.#words.children].map((line) => line.textContent);
    if (old.join("\n") !== lines.join("\n")) this.#words.replaceChildren(...lines.map((line) => h("p", {}, line)));
    this.element.classList.toggle("worded", lines.length > 0);
    if (lines.length) this.boxes.clear();
  }

  redraw() {
    if (!this.document) return;
    const { frame, faces } = this.document;
    this.boxes.draw(faces, frame.width, frame.height);
  }

  /** Cuts a face with some room around it out of the picture. */
  cut(box, target) {
    if (!this.document) return;
    const [left, top, right, bottom] = box;
    const [x, y] = this.#scale;
    const side = Math.max((right - left) * x, (bottom - top) * y) * 1.4;
    const context = target.getContext("2d");
    context.clearRect(0, 0, target.width, target.height);
    const middle = [((left + right) / 2) * x, ((top + bottom) / 2) * y];
    context.drawImage(this.#canvas, middle[0] - side / 2, middle[1] - side / 2, side, side, 0, 0, target.width, target.height);
  }

  #paint(document, bitmap) {
    const { frame } = document;
    if (this.#canvas.width !== bitmap.width || this.#canvas.height !== bitmap.height) {
      this.#canvas.width = bitmap.width;
      this.#canvas.height = bitmap.height;
    }
    this.#context.drawImage(bitmap, 0, 0);
    bitmap.close();
    const shape = (frame.width * (frame.pixel_aspect ?? 1)) / frame.height;
    this.#shot.style.aspectRatio = String(shape);
    this.#shot.style.setProperty("--shape", String(shape));
    this.#shot.hidden = false;
    this.element.classList.remove("blank");
    this.#scale = [this.#canvas.width / frame.width, this.#canvas.height / frame.height];
    this.document = document;
    this.redraw();
  }

  /** Tells screen readers what the picture shows. */
  describe(text) {
    mark(this.#canvas, "aria-label", text);
  }
}
