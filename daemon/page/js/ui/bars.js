// Bars of several kinds. The numbers stand beside them, so that no bar is needed to understand a value.
import { h, mark, say, svg } from "./dom.js";
import { delay } from "./times.js";
import { count, percent } from "./words.js";

/** A thin bar for a share; the share stands beside it in words, so it is hidden from screen readers. */
export function bar() {
  const fill = h("span");
  return {
    element: h("span.bar", { "aria-hidden": "true" }, fill),
    set(share) {
      fill.style.width = `${Math.min(1, Math.max(0, share)) * 100}%`;
    },
  };
}

/** Shares of a whole, one bar each; `rows` are pairs of a label and a number. */
export function shares(name, rows, none) {
  const sum = rows.reduce((total, [, n]) => total + n, 0);
  if (!sum) return h("section.shares", {}, h("h3", {}, name), h("p.quiet", {}, none));
  const items = rows.map(([label, n]) => {
    const one = bar();
    one.set(n / sum);
    return h("li", { title: String(n) }, h("span", {}, label), one.element, h("span.number", {}, percent(n / sum)));
  });
  return h("section.shares", {}, h("h3", {}, name), h("ul", {}, ...items));
}

/** Parts of a whole time as one bar with its numbers. */
export class Stack {
  #parts = new Map();
  #total = h("p");
  #whole = h("div.stack", { "aria-hidden": "true" });
  #legend = h("ul.legend");
  element = h("div.timing", {}, this.#total, this.#whole, this.#legend);

  /** Shows milliseconds by name. */
  show(parts, total) {
    say(this.#total, total);
    const sum = Object.values(parts).reduce((all, ms) => all + ms, 0) || 1;
    for (const [name, ms] of Object.entries(parts)) {
      if (!this.#parts.has(name)) this.#add(name);
      const part = this.#parts.get(name);
      part.fill.style.width = `${(ms / sum) * 100}%`;
      say(part.number, ms < 10 ? `${ms.toFixed(1)} ms` : delay(ms));
    }
  }

  #add(name) {
    const number = this.#parts.size + 1;
    const part = { fill: h(`span.part${number}`), number: h("span.number") };
    this.#whole.append(part.fill);
    this.#legend.append(h("li", {}, h(`span.key.part${number}`, { "aria-hidden": "true" }), `${name} `, part.number));
    this.#parts.set(name, part);
  }
}

const WIDE = 480;
const HIGH = 120;

/** A bar for every hour; `bars` are {label, n}, `now` is the index of the last one that has begun. */
export function hours(bars, now) {
  const most = Math.max(1, ...bars.map(({ n }) => n));
  const step = WIDE / bars.length;
  const chart = svg("svg.hours", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", preserveAspectRatio: "none" });
  const busiest = bars.reduce((best, one) => (one.n > best.n ? one : best), bars[0]);
  const sum = bars.reduce((all, { n }) => all + n, 0);
  mark(chart, "aria-label", `${count(sum, "face")} today; most in the hour from ${busiest.label}: ${busiest.n}`);
  bars.forEach(({ label, n }, index) => {
    const height = n ? Math.max(2, (n / most) * HIGH) : 1;
    const attributes = { x: index * step + step * 0.12, y: HIGH - height, width: step * 0.76, height };
    const kind = index > now ? "rect.later" : n ? "rect.some" : "rect.none";
    chart.append(svg(kind, attributes, svg("title", {}, `${label}: ${count(n, "face")}`)));
  });
  return chart;
}
