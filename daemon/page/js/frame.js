// What stands around every view: the header's state, the banner of a lost connection, the footer.
import { ApiError } from "./api/client.js";
import { announce, h, mark, say } from "./ui/dom.js";
import { clock } from "./ui/times.js";
import { count, fleetWords } from "./ui/words.js";

const element = (id) => document.getElementById(id);

/** Keeps header, banner and footer in line with the state. */
export class PageFrame {
  #state;
  #troubled = null;

  constructor(state, tryNow) {
    this.#state = state;
    this.#retry = h("button", { type: "button", onclick: tryNow }, "Try now");
    for (const kind of ["node", "cameras"]) state.addEventListener(kind, () => this.#header());
    state.addEventListener("connection", () => this.banner());
    state.addEventListener("node", () => this.#footer());
  }
  #retry;
  #words = h("span");
  #count = h("span.number");

  /** Says that the connection is lost, and counts down to the next try. */
  banner() {
    const { good, since, error, next } = this.#state.connection;
    const banner = element("banner");
    document.body.classList.toggle("lost", !good);
    if (good) {
      if (!banner.hidden) announce("Connected again");
      banner.hidden = true;
      return;
    }
    if (!banner.children.length) banner.append(this.#words, this.#count, this.#retry);
    const what = error instanceof ApiError ? `visaged refuses to send events: ${error.message}` : "The connection to visaged is lost";
    say(this.#words, `${what}. What you see is from ${clock(since)}.`);
    const seconds = Math.ceil((next - Date.now()) / 1000);
    say(this.#count, seconds > 0 ? `Trying again in ${seconds} s.` : "Trying again now.");
    mark(this.#count, "aria-hidden", "true"); // a countdown that is read out every second helps nobody
    banner.hidden = false;
  }

  #header() {
    const { node, cameras, troubled, facesNow } = this.#state;
    if (!node) return;
    say(element("node"), node.node);
    const bad = troubled.length;
    const items = [
      [`${count(cameras.size, "camera")}${bad ? `, ${bad} in trouble` : ""}`, bad > 0],
      [`${count(facesNow, "face")} now`, false],
      [node.mqtt.connected ? "broker connected" : (node.mqtt.error ?? "the MQTT broker is not connected"), !node.mqtt.connected],
    ];
    const list = element("state");
    while (list.children.length < items.length) list.append(h("li"));
    this.#fleet(list, node.fleet);
    items.forEach(([text, isBad], index) => {
      say(list.children[index], text);
      mark(list.children[index], "class", isBad ? "bad" : null);
    });
    document.title = `${bad ? `${bad} in trouble · ` : ""}${node.node} · visaged`;
    this.#announce(troubled.map((camera) => camera.camera));
  }

  /** Of a fleet, a line that leads to its view; a single machine has none. */
  #fleet(list, fleet) {
    if (!fleet) return;
    const { text, bad } = fleetWords(fleet);
    if (!this.#line) list.append((this.#line = h("li", {}, h("a", { href: "#/fleet" }))));
    say(this.#line.firstChild, text);
    mark(this.#line, "class", bad ? "bad" : null);
  }
  #line = null;

  /** Tells of cameras that came into trouble or out of it, but not of those that were so when the page was opened. */
  #announce(names) {
    const before = this.#troubled;
    this.#troubled = new Set(names);
    if (!before) return;
    const fresh = names.filter((name) => !before.has(name));
    const well = [...before].filter((name) => !this.#troubled.has(name));
    if (fresh.length) announce(`In trouble: ${fresh.join(", ")}`);
    else if (well.length) announce(`Well again: ${well.join(", ")}`);
  }

  #footer() {
    const { version, networks, history, privacy } = this.#state.node;
    const hours = history.keep_hours;
    const kept = hours ? `events are kept for ${hours} h, ${history.pictures ? "with" : "without"} pictures` : "events are not kept";
    const facts = [
      `visaged ${version}`,
      [networks.detector, networks.analyzer].filter(Boolean).join(", ") + (networks.provider ? ` on ${networks.provider}` : ""),
      kept,
      privacy.blur_faces ? "faces are blurred" : null,
    ];
    const links = h("span", {}, h("a", { href: "docs" }, "HTTP API"), " · ", h("a", { href: "metrics" }, "metrics"));
    element("bottom").replaceChildren(...facts.filter(Boolean).map((fact) => h("span", {}, fact)), links);
  }
}
