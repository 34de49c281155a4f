// Words for attributes and states. The attributes' own are those of the messages.
import { clock, now as serverNow, span } from "./times.js";

/** What can be asked of events, with the labels that the packaged networks know. */
export const LABELS = {
  emotion: ["angry", "calm", "disgusted", "happy", "sad", "scared", "surprised"],
  gender: ["female", "male"],
  glasses: ["none", "glasses", "sunglasses"],
  beard: ["none", "beard"],
  hat: ["none", "hat"],
  mask: ["none", "mask"],
};

/** A number of things: 1 face, 2 faces. */
export function count(n, one, more = `${one}s`) {
  return `${n.toLocaleString()} ${n === 1 ? one : more}`;
}

/** A share as a percentage. */
export function percent(share) {
  return `${Math.round(share * 100)}%`;
}

/** Name of an attribute for people: right_eye becomes "right eye". */
export function title(name) {
  return name.replaceAll("_", " ");
}

/** The value of an attribute. */
export function valueWords(name, value) {
  if (name === "age") return `about ${Math.round(value)}`;
  if (typeof value === "string") return value;
  if (typeof value === "number") return value.toFixed(2);
  return Object.entries(value)
    .map(([angle, degrees]) => `${angle} ${String(Math.round(degrees)).replace("-", "−")}°`)
    .join(" ");
}

/** The few words of a face that fit beside it. */
export function shortWords(attributes) {
  const parts = [];
  if (attributes.age) parts.push(`~${Math.round(attributes.age.value)}`);
  if (attributes.emotion) parts.push(attributes.emotion.value);
  return parts.join(" ");
}

/** Everything worth telling of a face, as the terminal tells it. */
export function allWords(attributes) {
  const words = [];
  let closed = 0;
  for (const [name, { value }] of Object.entries(attributes)) {
    if (name === "age") words.unshift(valueWords(name, value));
    else if (value === "closed") closed += 1;
    else if (typeof value === "string" && value !== "none" && value !== "open") words.push(value);
  }
  if (closed) words.push(closed === 1 ? "an eye closed" : "eyes closed");
  return words.join(", ") || "a face";
}

/** Whether a camera needs a person. */
export function inTrouble(camera) {
  return Boolean(camera.error);
}

/** The state of a camera in a word or two. */
export function stateWords(camera) {
  if (inTrouble(camera)) return "in trouble";
  if (camera.state === "streaming" && camera.reduced === "idle") return "idle";
  return { streaming: "live" }[camera.state] ?? camera.state;
}

/** When a camera in trouble is tried again. */
export function nextTry(camera, now = serverNow()) {
  if (camera.state === "connecting") return "being tried now";
  if (!camera.next_try_at) return "tried again by itself";
  const seconds = (new Date(camera.next_try_at) - now) / 1000;
  return seconds < 1 ? "being tried now" : `tried again in ${span(Math.ceil(seconds)).replace(".0", "")}`;
}

/** What is to be said where no face is in sight. */
export function noFace(camera) {
  return camera.last_face_at ? `No face since ${clock(camera.last_face_at)}` : "No face yet";
}

const REASONS = {
  stream_ended: "the stream ended",
  removed: "the camera was removed",
  shutdown: "visaged was stopped",
  restart: "visaged was restarted",
  moved: "the camera moved to another node",
};

/** How long a face was seen, and how that ended if not by itself. */
export function seenWords(event) {
  if (event.event !== "end") {
    const seconds = Math.max(event.duration_s, (serverNow() - new Date(event.started_at)) / 1000);
    return seconds < 1 ? "here now" : `here now, for ${span(Math.floor(seconds)).replace(".0", "")}`;
  }
  const why = REASONS[event.reason];
  return `seen for ${event.duration_s < 0.1 ? "a moment" : span(event.duration_s)}${why ? `; ${why}` : ""}`;
}
