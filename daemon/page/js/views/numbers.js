// Numbers of today: faces by the hour, ages, emotions.
import { json, query } from "../api/client.js";
import { hours, shares } from "../ui/bars.js";
import { h, say } from "../ui/dom.js";
import { hourOfDay, now as serverNow, timeOfDay, today } from "../ui/times.js";
import { count } from "../ui/words.js";

const HOUR_MS = 3_600_000;
const EVERY_MS = 60_000;
const SOON_MS = 2_000;

/** The panel of numbers. */
export class Numbers {
  #state;
  #now = h("strong.figure");
  #today = h("strong.figure");
  #seen = h("span", { hidden: true }, this.#today, " seen today");
  #chart = h("div.chart");
  #shares = h("div.parts");
  #timer = null;
  element = h(
    "section.card.numbers",
    { "aria-labelledby": "numbers" },
    h("h2", { id: "numbers" }, "Today"),
    h("p.figures", {}, h("span", {}, this.#now, " in sight now"), this.#seen),
    this.#chart,
    this.#shares,
  );

  constructor(state) {
    this.#state = state;
  }

  update() {
    say(this.#now, this.#state.facesNow.toLocaleString());
  }

  /** Asks for the numbers, and then once a minute. */
  async load() {
    this.stop();
    if (this.#state.node?.history.keep_hours === 0) {
      this.#chart.replaceChildren(h("p.quiet", {}, "Faces are not counted, as events are not kept (history.keep_hours is 0)."));
      return;
    }
    this.#timer = setTimeout(() => this.load(), EVERY_MS);
    try {
      this.#show(await json(query("v1/statistics", [["since", today().toISOString()], ["step_s", 3600]])));
    } catch (error) {
      this.#chart.replaceChildren(h("p.quiet", {}, `The numbers cannot be shown: ${error.message}.`));
    }
  }

  /** A face came: the numbers are asked for soon. */
  soon() {
    if (this.#soon) return;
    this.#soon = setTimeout(() => {
      this.#soon = null;
      this.load();
    }, SOON_MS);
  }
  #soon = null;

  stop() {
    clearTimeout(this.#timer);
    clearTimeout(this.#soon);
    this.#soon = null;
  }

  #show({ tracks, ages, emotions }) {
    const sum = tracks.reduce((all, one) => all + one.tracks, 0);
    say(this.#today, sum.toLocaleString());
    this.#seen.hidden = false;
    const open = Boolean(this.#chart.querySelector("details")?.open);
    const focused = this.#chart.querySelector("summary:focus") !== null;
    this.#chart.replaceChildren(...(sum ? this.#hours(tracks, open) : [h("p.quiet", {}, "No face was seen today.")]));
    if (focused) this.#chart.querySelector("summary")?.focus();
    this.#shares.hidden = sum === 0 || !this.#state.node?.networks.analyzer; // there is nothing to share out
    const decades = ages.filter(({ tracks: n }, index) => n || (index < 8 && index > 0));
    const rows = decades.map(({ from, to, tracks: n }) => [to ? `${from} to ${to - 1}` : `${from} and older`, n]);
    const felt = Object.entries(emotions).sort((a, b) => b[1] - a[1]);
    this.#shares.replaceChildren(
      shares("Age", rows, "No age was read today."),
      shares("Emotions", felt, "No emotion was read today."),
    );
  }

  #hours(tracks, open) {
    // By the clock here, also where it was set forward or back today.
    const first = today().getTime();
    const bars = Array.from({ length: 24 }, (_, hour) => ({ label: timeOfDay(first + hour * HOUR_MS), n: 0 }));
    for (const { from, tracks: n } of tracks) {
      const hour = Math.floor((new Date(from) - first) / HOUR_MS);
      if (bars[hour]) bars[hour].n += n;
    }
    const now = Math.floor((serverNow() - first) / HOUR_MS);
    const body = bars.slice(0, now + 1).map(({ label, n }) => h("tr", {}, h("th", { scope: "row" }, label), h("td.number", {}, n)));
    const head = h("tr", {}, h("th", { scope: "col" }, "Hour from"), h("th", { scope: "col" }, "Faces"));
    const most = Math.max(...bars.map(({ n }) => n));
    const axis = [0, 6, 12, 18].map((hour) => h("span", {}, hourOfDay(first + hour * HOUR_MS)));
    return [
      h("p.small.quiet", {}, `Faces an hour, up to ${count(most, "face")}`),
      hours(bars, now),
      h("p.axis.small.quiet", { "aria-hidden": "true" }, ...axis),
      h("details.small", { open }, h("summary", {}, "As a table"), h("table", {}, h("thead", {}, head), h("tbody", {}, ...body))),
    ];
  }
}
