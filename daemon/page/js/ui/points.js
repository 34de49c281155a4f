// Which points are drawn on faces.
import { h } from "./dom.js";

/** A choice of points; `chosen` is called with "", "5" or "106". */
export function pointsChoice(chosen, first = "") {
  const choices = [
    ["", "no points"],
    ["5", "5 points"],
    ["106", "106 points where known"],
  ];
  const options = choices.map(([value, text]) => h("option", { value, selected: value === first }, text));
  const select = h("select", { "aria-label": "Points on faces", onchange: () => chosen(select.value) }, ...options);
  return select;
}
