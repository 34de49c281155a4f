// A face in words and bars: what is thought of it, and how sure that is.
import { bar } from "./bars.js";
import { h, mark, say } from "./dom.js";
import { percent, title, valueWords } from "./words.js";

const OLDEST = 100; // right end of the scale of ages
const CROP_PX = 144;
// Readings in this order, whatever comes first; others after them.
const ORDER = ["gender", "glasses", "beard", "hat", "mask", "left_eye", "right_eye", "head_pose", "quality", "blur"];

/** One face; the elements stay, and `show` gives them new values. */
export class FaceCard {
  crop = h("canvas.crop", { width: CROP_PX, height: CROP_PX, role: "img" });
  #name = h("h3");
  #sure = h("p.small.quiet");
  #age = new Age();
  #emotions = new Emotions();
  #rest = h("dl.readings");
  #rows = new Map();
  element = h(
    "article.face",
    {},
    h("div.face-head", {}, this.crop, h("div", {}, this.#name, this.#sure)),
    this.#age.element,
    this.#emotions.element,
    this.#rest,
  );

  /** Shows a face document under a name such as "Face 12". */
  show(face, name) {
    const [left, top, right, bottom] = face.box;
    say(this.#name, name);
    mark(this.crop, "aria-label", `${name}, cut out of the picture`);
    const size = `${Math.round(right - left)} × ${Math.round(bottom - top)} px`;
    say(this.#sure, `${percent(face.confidence)} sure it is a face, ${size}`);
    const { age, emotion, ...rest } = face.attributes;
    this.#age.show(age);
    this.#emotions.show(emotion);
    this.#showRest(rest);
  }

  #showRest(rest) {
    for (const [name, row] of this.#rows) if (!(name in rest)) row.element.hidden = true;
    for (const [name, reading] of Object.entries(rest)) {
      if (!this.#rows.has(name)) this.#rows.set(name, this.#row(name));
      const row = this.#rows.get(name);
      row.element.hidden = false;
      say(row.value, valueWords(name, reading.value));
      row.bar.set(reading.confidence, `${percent(reading.confidence)} sure`);
      say(row.share, percent(reading.confidence));
    }
  }

  #row(name) {
    const row = { value: h("span"), bar: bar(), share: h("span.number") };
    row.element = h("div", {}, h("dt", {}, title(name)), h("dd", {}, row.value, row.bar.element, row.share));
    const place = ORDER.indexOf(name);
    row.element.style.order = place < 0 ? ORDER.length : place;
    this.#rest.append(row.element);
    return row;
  }
}

/** The age as a tick within the band of its deviation. */
class Age {
  #words = h("p");
  #band = h("span.band");
  #tick = h("span.tick");
  element = h("div.age", {}, this.#words, h("div.scale", { "aria-hidden": "true" }, this.#band, this.#tick));

  show(age) {
    this.element.classList.toggle("unknown", !age);
    if (!age) return say(this.#words, "Age: unknown");
    const deviation = age.deviation ?? 0;
    say(this.#words, `Age: about ${Math.round(age.value)}, give or take ${Math.round(deviation)} (${percent(age.confidence)} sure)`);
    const left = Math.max(0, age.value - deviation);
    this.#band.style.left = `${(left / OLDEST) * 100}%`;
    this.#band.style.width = `${((Math.min(OLDEST, age.value + deviation) - left) / OLDEST) * 100}%`;
    this.#tick.style.left = `${(Math.min(OLDEST, age.value) / OLDEST) * 100}%`;
  }
}

/** Emotions as thin bars, one for each. */
class Emotions {
  #words = h("p");
  #list = h("ul.emotions", { "aria-label": "Emotions" });
  #rows = new Map();
  element = h("div", {}, this.#words, this.#list);

  show(emotion) {
    const shares = emotion?.probabilities ?? {};
    this.#list.hidden = Object.keys(shares).length === 0;
    say(this.#words, emotion ? `Emotion: ${emotion.value} (${percent(emotion.confidence)} sure)` : "Emotion: unknown");
    for (const [name, share] of Object.entries(shares)) {
      if (!this.#rows.has(name)) this.#add(name);
      const row = this.#rows.get(name);
      row.bar.set(share, percent(share));
      say(row.share, percent(share));
      row.element.classList.toggle("most", name === emotion.value);
    }
  }

  #add(name) {
    const row = { bar: bar(), share: h("span.number") };
    row.element = h("li", {}, h("span", {}, name), row.bar.element, row.share);
    this.#rows.set(name, row);
    this.#list.append(row.element);
  }
}

/** The faces of a screen, each with its crop. */
export class FaceList {
  #cards = new Map();
  #none = h("p.quiet");
  #list = h("div.face-list");
  element = h("div", {}, this.#none, this.#list);

  /** Shows the faces of a screen's picture, and words where there are none. */
  show(screen, faces, none) {
    this.#none.hidden = faces.length > 0;
    say(this.#none, none);
    const gone = new Set(this.#cards.keys());
    faces.forEach((face, index) => {
      const key = face.track_id ?? index + 1;
      gone.delete(key);
      if (!this.#cards.has(key)) this.#add(key);
      this.#cards.get(key).show(face, `Face ${key}`);
      screen.cut(face.box, this.#cards.get(key).crop);
    });
    for (const key of gone) {
      this.#cards.get(key).element.remove();
      this.#cards.delete(key);
    }
  }

  #add(key) {
    const card = new FaceCard();
    this.#cards.set(key, card);
    this.#list.append(card.element);
  }
}
