// Times in the viewer's zone, with UTC where the pointer rests, and spans of time in words.
import { h, mark, say } from "./dom.js";

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const HOUR = new Intl.DateTimeFormat(undefined, { hour: "numeric" });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const SHORT_DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

let ahead = 0; // by how many milliseconds the server's clock is before the browser's

/** Takes the server's time from an answer's head: its times are told by its own clock, whatever the browser's says. */
export function setServerTime(text) {
  const difference = Date.parse(text) - Date.now();
  // Answers tell whole seconds, and take a moment.
  if (Number.isFinite(difference)) ahead = Math.abs(difference) < 2500 ? 0 : difference;
}

/** The time now, in milliseconds, by the server's clock. */
export function now() {
  return Date.now() + ahead;
}

/** Midnight of today here. */
export function today() {
  return new Date(new Date(now()).setHours(0, 0, 0, 0));
}

/** The time of day here; of other days than today with the date. */
export function clock(time) {
  const date = new Date(time);
  const text = CLOCK.format(date);
  return date >= today() ? text : `${SHORT_DAY.format(date)}, ${text}`;
}

/** The time of day alone. */
export function timeOfDay(time) {
  return CLOCK.format(new Date(time));
}

/** The hour of the day alone. */
export function hourOfDay(time) {
  return HOUR.format(new Date(time));
}

/** A day in words: today, yesterday, or its date. */
export function day(time) {
  const days = Math.round((today() - new Date(time).setHours(0, 0, 0, 0)) / 86_400_000);
  return days === 0 ? "Today" : days === 1 ? "Yesterday" : DAY.format(new Date(time));
}

/** An element that shows a time. */
export function timeElement(time, text = clock) {
  return setTime(h("time"), time, text);
}

/** Makes a time element show another time. */
export function setTime(element, time, text = clock) {
  mark(element, "datetime", time);
  mark(element, "title", `${new Date(time).toISOString().replace("T", " ").slice(0, 19)} UTC`);
  say(element, text(time));
  return element;
}

/** Milliseconds, as seconds where there are many. */
export function delay(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : span(ms / 1000);
}

/** A span of time with its unit. */
export function span(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
