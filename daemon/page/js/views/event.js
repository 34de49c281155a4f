// A row of what happened: one track, by its newest event; opened, everything that is known of it.
import { json, query } from "../api/client.js";
import { announce, confirmed, copyButton, h, mark, say } from "../ui/dom.js";
import { FaceCard } from "../ui/face.js";
import { setTime, timeOfDay } from "../ui/times.js";
import { allWords, seenWords } from "../ui/words.js";

/** What identifies a track over the runs of the daemon. */
export function keyOf(event) {
  return `${event.epoch}/${event.camera}/${event.track_id}`;
}

/** A row. */
export class EventRow {
  #state;
  #event;
  #shown = "";
  #card = null;
  #removed;
  #picture = h("div.best");
  #time = h("time.number");
  #words = h("span.what");
  #camera = h("span.where");
  #seen = h("span.small.quiet");
  #inside = h("div.inside");
  #details = h(
    "details",
    { ontoggle: () => this.#toggle() },
    h("summary", {}, this.#picture, h("span.lines", {}, h("span.line", {}, this.#time, this.#camera), this.#words, this.#seen)),
    this.#inside,
  );
  element = h("li.event", {}, this.#details);

  constructor(state, event, removed) {
    this.#state = state;
    this.#removed = removed;
    this.show(event);
  }

  /** Shows the track's newest event. */
  show(event) {
    if (this.#event && event.seq < this.#event.seq) return;
    this.#event = event;
    setTime(this.#time, event.started_at, timeOfDay);
    say(this.#camera, event.camera);
    say(this.#words, allWords(event.face.attributes));
    say(this.#seen, seenWords(event));
    this.element.classList.toggle("here", event.event !== "end");
    this.#showPicture();
    if (this.#details.open) this.#fill();
  }

  /** Says how long a face has been here; called every second. */
  refresh() {
    if (this.#event.event !== "end") say(this.#seen, seenWords(this.#event));
  }

  #showPicture() {
    // The address changes with every event, the picture only with a better look.
    const look = this.#event.picture ? this.#event.best_shot.captured_at : "";
    if (look === this.#shown) return;
    this.#shown = look;
    this.#picture.replaceChildren();
    if (!look) return;
    const alt = `Best look at face ${this.#event.track_id} at ${this.#event.camera}`;
    const picture = h("img", { src: `${this.#path}/best.jpg`, alt, loading: "lazy", width: 56, height: 56 });
    picture.addEventListener("error", () => picture.remove());
    this.#picture.append(picture);
  }

  get #path() {
    return `v1/events/${encodeURIComponent(this.#event.id)}`;
  }

  #toggle() {
    if (this.#details.open) this.#fill();
    else {
      this.#card = null;
      this.#inside.replaceChildren();
    }
  }

  #fill() {
    if (!this.#card) {
      this.#card = new FaceCard();
      this.#card.crop.remove();
      const camera = `#/camera/${encodeURIComponent(this.#event.camera)}`;
      const remove = h("button.plain", { type: "button", onclick: () => this.#delete() }, "Delete");
      remove.hidden = !this.#state.mayChange || this.#state.node.history.keep_hours === 0;
      this.#inside.append(
        this.#card.element,
        h("div.row", {}, h("a.button", { href: camera }, `Open ${this.#event.camera}`), copyButton("Copy as JSON", () => JSON.stringify(this.#event, null, 2)), remove),
      );
    }
    this.#card.show(this.#event.face, `Face ${this.#event.track_id}`);
    mark(this.#inside, "data-event", this.#event.id);
  }

  async #delete() {
    if (!(await confirmed("Delete all events of this face and their pictures from this machine? That cannot be undone.", "Delete"))) return;
    try {
      for (const id of await idsOfTrack(this.#event)) await json(`v1/events/${encodeURIComponent(id)}`, { method: "DELETE" });
      this.element.remove();
      this.#removed();
      announce("Deleted");
    } catch (error) {
      this.#inside.append(h("p.bad", { role: "alert" }, `Not deleted: ${error.message}.`));
    }
  }
}

/** The events of a track: a row stands for all of them. */
async function idsOfTrack(event) {
  const ids = [];
  let cursor = null;
  do {
    const pairs = [["camera", event.camera], ["since", event.started_at], ["limit", 500], ["cursor", cursor]];
    const { events, next } = await json(query("v1/events", pairs));
    ids.push(...events.filter((one) => keyOf(one) === keyOf(event)).map((one) => one.id));
    cursor = next;
  } while (cursor);
  return ids;
}
