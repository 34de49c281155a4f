// Boxes, points and labels over a picture, drawn from the faces' documents.
import { h, mark, say, svg } from "./dom.js";
import { shortWords } from "./words.js";

const GAP_PX = 3;

/** The layer over a picture. Its elements are kept from picture to picture. */
export class Boxes {
  /** Which points are drawn: "", "5" or "106". */
  points = "";
  #drawing = svg("svg.boxes", { preserveAspectRatio: "none", "aria-hidden": "true" });
  #labels = h("div.labels", { "aria-hidden": "true" });
  #drawn = new Map();
  elements = [this.#drawing, this.#labels];

  /** Draws faces; boxes and points count the pixels of a picture of `width` x `height`. */
  draw(faces, width, height) {
    mark(this.#drawing, "viewBox", `0 0 ${width} ${height}`);
    const gone = new Set(this.#drawn.keys());
    faces.forEach((face, index) => {
      const key = face.track_id ?? index;
      gone.delete(key);
      this.#place(this.#drawn.get(key) ?? this.#add(key), face, index, width, height);
    });
    for (const key of gone) this.#remove(key);
    this.#placeLabels(faces, width, height);
  }

  clear() {
    for (const key of [...this.#drawn.keys()]) this.#remove(key);
  }

  #add(key) {
    const parts = {
      edge: svg("rect.edge"),
      line: svg("rect.line"),
      dots: svg("path.dots"),
      label: h("span.label"),
    };
    this.#drawing.append(parts.edge, parts.line, parts.dots);
    this.#labels.append(parts.label);
    this.#drawn.set(key, parts);
    return parts;
  }

  #remove(key) {
    for (const element of Object.values(this.#drawn.get(key))) element.remove();
    this.#drawn.delete(key);
  }

  #place(parts, face, index, width, height) {
    const [left, top, right, bottom] = face.box;
    for (const rect of [parts.edge, parts.line]) {
      mark(rect, "x", left);
      mark(rect, "y", top);
      mark(rect, "width", Math.max(0, right - left));
      mark(rect, "height", Math.max(0, bottom - top));
    }
    mark(parts.line, "data-face", face.track_id ?? index + 1);
    const points = this.points === "106" ? (face.landmarks_106 ?? face.landmarks_5) : this.points === "5" ? face.landmarks_5 : [];
    mark(parts.dots, "d", points.map(([x, y]) => `M${x} ${y}h0`).join(""));
    say(parts.label, [face.track_id ?? index + 1, shortWords(face.attributes)].filter(Boolean).join(" · "));
  }

  /** Puts every label above its box, or below where there is no room, so that none hides a face or another label; it is left out where all is full. */
  #placeLabels(faces, width, height) {
    const room = { width: this.#labels.clientWidth, height: this.#labels.clientHeight };
    const scale = [room.width / width, room.height / height];
    const taken = faces.map(({ box }) => scaled(box, scale));
    faces.forEach((face, index) => {
      const { label, dots } = this.#drawn.get(face.track_id ?? index);
      const across = taken[index][2] - taken[index][0];
      dots.style.strokeWidth = `${Math.max(1.2, Math.min(3, across / 40))}px`; // points of small faces do not run together
      const size = { width: label.offsetWidth, height: label.offsetHeight };
      const place = freePlace(taken[index], size, room, taken);
      label.style.visibility = place ? "visible" : "hidden"; // rather no words than words over a face
      if (!place) return;
      taken.push(place);
      label.style.transform = `translate(${place[0]}px, ${place[1]}px)`;
    });
  }
}

function scaled([left, top, right, bottom], [x, y]) {
  return [left * x, top * y, right * x, bottom * y];
}

/** The first place near a box that covers nothing that is taken; null if there is none. */
function freePlace([left, top, right, bottom], size, room, taken) {
  const within = (value, most) => Math.max(0, Math.min(value, most));
  const sides = [left, right - size.width].map((x) => within(x, room.width - size.width));
  if ((left + right) / 2 > room.width * 0.6) sides.reverse();
  const steps = [0, 1, 2, 3].map((row) => row * (size.height + GAP_PX));
  const above = steps.map((up) => top - GAP_PX - size.height - up);
  const below = steps.map((down) => bottom + GAP_PX + down);
  const places = [...above, ...below].filter((y) => y >= 0 && y + size.height <= room.height);
  for (const y of places) {
    for (const x of sides) {
      const place = [x, y, x + size.width, y + size.height];
      if (!taken.some((other) => overlap(place, other))) return place;
    }
  }
  return null;
}

function overlap(one, other) {
  return one[0] < other[2] && other[0] < one[2] && one[1] < other[3] && other[1] < one[3];
}
