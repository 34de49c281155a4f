// What happened: the newest event of every track, of the last hours and as they come.
import { json, query } from "../api/client.js";
import { announce, confirmed, h, say } from "../ui/dom.js";
import { day, now, timeElement } from "../ui/times.js";
import { EventRow, keyOf } from "./event.js";
import { Filters } from "./filters.js";

const PAGE = matchMedia("(min-width: 1100px)").matches ? 40 : 12; // in one column, other things stand below
const MOST = 400; // rows; beyond it the oldest go, and are asked for again on demand
const TOGETHER_MS = 250;

/** The list of events. */
export class Happened {
  #state;
  #filters = new Filters(() => this.load());
  #rows = new Map();
  #cursor = null;
  #loading = 0;
  #loadedAt = now();
  #day = day(now());
  #waiting = new Map();
  #timer = null;
  #words = h("p.quiet.pad");
  #list = h("ol.events");
  #more = h("button", { type: "button", onclick: () => this.#older() }, "Show older");
  #clear = h("button.plain", { type: "button", onclick: () => this.#deleteAll() }, "Delete all");
  element = h(
    "section.happened",
    { "aria-labelledby": "happened" },
    h("div.heading", {}, h("h2", { id: "happened" }, "What happened"), this.#clear),
    this.#filters.element,
    this.#words,
    this.#list,
    h("p.pad", {}, this.#more),
  );

  constructor(state) {
    this.#state = state;
    this.#more.parentElement.hidden = this.#clear.hidden = true;
  }

  /** Brings the filters in line with the cameras. */
  update() {
    this.#filters.cameras([...this.#state.cameras.keys()]);
  }

  /** Says how long those have been here who are. */
  refresh() {
    if (this.#day !== day(this.#loadedAt)) this.load(); // at midnight, for Today is Yesterday then
    for (const row of this.#rows.values()) row.refresh();
  }

  /** Asks for the newest events. */
  async load() {
    const turn = ++this.#loading;
    this.#loadedAt = now();
    this.#day = day(this.#loadedAt);
    try {
      const answer = this.#kept ? await this.#ask(null) : { events: [], next: null };
      if (turn !== this.#loading) return; // the filters were changed meanwhile
      this.#rows.clear();
      this.#list.replaceChildren();
      this.#take(answer);
    } catch (error) {
      if (turn === this.#loading) this.#say(`The events cannot be shown: ${error.message}.`);
    }
  }

  /** Takes an event as it comes. Several that come together are drawn together. */
  add(event) {
    this.#waiting.set(keyOf(event), event);
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      const events = [...this.#waiting.values()];
      this.#waiting.clear();
      for (const one of events) this.#place(one);
      this.#finish();
    }, TOGETHER_MS);
  }

  /** Whether events are kept, so that they can be asked for and deleted. */
  get #kept() {
    return this.#state.node?.history.keep_hours !== 0;
  }

  #ask(cursor) {
    return json(query("v1/events", [...this.#filters.pairs(), ["latest", "true"], ["limit", PAGE], ["cursor", cursor]]));
  }

  #take({ events, next }) {
    for (const event of events) if (!this.#rows.has(keyOf(event))) this.#append(event);
    this.#cursor = next;
    this.#finish();
  }

  async #older() {
    this.#more.disabled = true;
    try {
      this.#take(await this.#ask(this.#cursor));
    } catch (error) {
      announce(error.message);
      say(this.#more, `Show older: ${error.message}. Try again`);
    } finally {
      this.#more.disabled = false;
    }
  }

  #place(event) {
    const row = this.#rows.get(keyOf(event));
    if (row) row.show(event);
    else if (this.#filters.match(event)) this.#insert(event);
  }

  #insert(event) {
    const row = this.#row(event);
    const first = this.#list.firstElementChild;
    const heading = first?.dataset.day === day(event.started_at) ? first : null;
    if (heading) heading.after(row.element);
    else this.#list.prepend(this.#heading(event), row.element);
    row.element.classList.add("fresh");
    while (this.#rows.size > MOST) this.#dropLast();
  }

  #append(event) {
    const days = this.#list.querySelectorAll("[data-day]");
    if (days[days.length - 1]?.dataset.day !== day(event.started_at)) this.#list.append(this.#heading(event));
    this.#list.append(this.#row(event).element);
  }

  #heading(event) {
    const item = h("li.day", {}, timeElement(event.started_at, day));
    item.dataset.day = day(event.started_at);
    return item;
  }

  #row(event) {
    const row = new EventRow(this.#state, event, () => {
      this.#rows.delete(keyOf(event));
      this.#finish();
    });
    this.#rows.set(keyOf(event), row);
    return row;
  }

  #dropLast() {
    const [key, row] = [...this.#rows].reduce((last, one) => (last[1].element.compareDocumentPosition(one[1].element) & 4 ? one : last));
    row.element.remove();
    this.#rows.delete(key);
    // What is left out now is older than the cursor knows; only a new beginning shows it.
    this.#cursor = null;
  }

  #finish() {
    this.#more.parentElement.hidden = this.#cursor === null;
    say(this.#more, "Show older");
    this.#clear.hidden = !this.#kept || !this.#state.mayChange || this.#rows.size === 0;
    const kept = !this.#kept ? "Events are not kept (history.keep_hours is 0); new ones appear here." : "New ones appear here by themselves.";
    if (this.#rows.size) this.#say("");
    else this.#say(this.#filters.active ? "Nothing that happened fits these filters." : `No face was seen yet. ${kept}`);
  }

  #say(text) {
    say(this.#words, text);
    this.#words.hidden = text === "";
  }

  async #deleteAll() {
    const camera = this.#filters.camera;
    const what = camera ? `all events of ${camera}` : "all events";
    if (!(await confirmed(`Delete ${what} and their pictures from this machine? That cannot be undone.`, "Delete"))) return;
    try {
      const { deleted } = await json(query("v1/events", [["camera", camera]]), { method: "DELETE" });
      announce(`${deleted} events deleted`);
      await this.load();
    } catch (error) {
      this.#say(`Nothing was deleted: ${error.message}.`);
    }
  }
}
