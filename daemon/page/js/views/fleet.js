// The fleet of this node: its nodes and how full they are, its cameras and where they are, and those without a place.
import { json, query } from "../api/client.js";
import { bar } from "../ui/bars.js";
import { h, mark, say } from "../ui/dom.js";
import { clock, now, span } from "../ui/times.js";
import { count } from "../ui/words.js";

const EVERY_MS = 5000;
const SOON_MS = 250; // after the last key of a word
const MOST_CAMERAS = 200; // more than that nobody reads: what is looked for is found by its name
const MOST_NODES = matchMedia("(max-width: 599px)").matches ? 6 : 40; // until more are asked for
const MOST_NAMES = 20;
const CAMERA_STATES = { streaming: "live", waiting: "in trouble" };
const NODE_STATES = { absent: "never joined" };
const BAD = new Set(["away", "refused", "waiting"]);
const GOOD = new Set(["up", "streaming"]);

/** The view of a fleet. */
export class FleetView {
  #state;
  #title = h("h2", { tabindex: -1 }, "Fleet");
  #facts = h("p.quiet.facts");
  #note = h("p.bad", { role: "status" });
  #search = h("input", { type: "search", placeholder: "Find a camera or a node", "aria-label": "Find a camera or a node", oninput: () => this.#load(SOON_MS) });
  #unplaced = new List("Cameras without a node", "unplaced", (one) => one.why, unplacedItem);
  #nodes = new List("Nodes", "nodes", (one) => one.name, (one) => nodeItem(one, () => this.#version, (name) => this.#find(name)));
  #everyNode = h("button", { type: "button", hidden: true, onclick: () => this.#showNodes(Infinity) }, "Show all nodes");
  #cameras;
  #body = h("div.fleet-body", { hidden: true });
  #addresses = new Map();
  #version = "";
  #most = MOST_NODES;
  #found = [];
  #timer = null;
  #asked = 0;
  #closed = false;
  wanted = [[], 640, 5];
  element;

  constructor(state) {
    this.#state = state;
    this.#cameras = new List("Cameras", "where", (one) => one.name, (one) => cameraItem(one, (name) => this.#address(name)));
    this.#nodes.element.append(this.#everyNode);
    this.#body.append(this.#unplaced.element, this.#nodes.element, this.#cameras.element);
    this.element = h(
      "section.fleet",
      { "aria-label": "Fleet" },
      h("div.heading", {}, h("a.back", { href: "#/" }, "← This node"), this.#title, this.#facts, this.#search),
      this.#note,
      this.#body,
    );
    say(this.#note, "Asking for the fleet …");
    this.#note.classList.remove("bad");
    this.#load(0);
  }

  focus() {
    this.#title.focus();
  }

  update() {}
  refresh() {}
  note() {}
  show() {}

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  /** Shows the cameras of a node. */
  #find(name) {
    this.#search.value = name;
    this.#load(0);
    this.#cameras.element.scrollIntoView({ block: "start" });
  }

  #load(after) {
    clearTimeout(this.#timer);
    if (!this.#closed) this.#timer = setTimeout(() => this.#ask(), after);
  }

  async #ask() {
    this.#timer = null;
    if (document.hidden) return this.#load(EVERY_MS);
    const asked = (this.#asked += 1);
    const match = this.#search.value.trim();
    try {
      const answer = await json(query("v1/fleet", [["match", match], ["limit", MOST_CAMERAS]]));
      if (asked === this.#asked) this.#show(answer, match);
    } catch (error) {
      if (asked === this.#asked && error.status) this.#say(`The fleet cannot be shown: ${error.message}.`, true);
    }
    // Whoever types on has asked for another answer meanwhile.
    if (!this.#timer && asked === this.#asked) this.#load(EVERY_MS);
    return undefined;
  }

  #show(fleet, match) {
    const { summary, coordinator, nodes } = fleet;
    this.#body.hidden = false;
    say(this.#title, `Fleet ${fleet.fleet}`);
    const moving = summary.moving ? `${summary.moving.toLocaleString()} moving` : null;
    const facts = [
      `${summary.active.toLocaleString()} of ${count(summary.cameras, "camera")} published`,
      `${summary.nodes.toLocaleString()} of ${count(nodes.length, "node")} up`,
      moving,
      `coordinator since ${clock(now() - coordinator.running_s * 1000)}`,
    ];
    say(this.#facts, facts.filter(Boolean).join("  ·  "));
    const old = fleet.error && `What you see is from ${clock(now() - fleet.age_s * 1000)}: ${fleet.error}.`;
    this.#say(old || (coordinator.problem && `The coordinator has a problem: ${coordinator.problem}.`) || "", true);
    this.#version = fleet.version;
    this.#addresses = new Map(nodes.map((node) => [node.name, node.url]));
    const fits = (node) => !match || `${node.name}\n${node.site ?? ""}`.toLowerCase().includes(match.toLowerCase());
    this.#found = nodes.filter(fits).sort((a, b) => BAD.has(b.state) - BAD.has(a.state));
    this.#showNodes(this.#most, match);
    this.#unplaced.show(byReason(fleet.unplaced), fleet.matching.unplaced, match, "camera", fleet.unplaced.length);
    this.#unplaced.element.hidden = fleet.matching.unplaced === 0;
    this.#cameras.show(fleet.cameras, fleet.matching.cameras, match, "camera");
  }

  #showNodes(most, match = this.#search.value.trim()) {
    this.#most = most;
    const shown = this.#found.slice(0, most);
    this.#nodes.show(shown, this.#found.length, match, "node");
    this.#everyNode.hidden = shown.length === this.#found.length;
  }

  #say(text, bad) {
    say(this.#note, text);
    this.#note.classList.toggle("bad", bad);
    this.#note.hidden = !text;
  }

  /** The page of a camera's node; null if it has none that can be gone to. */
  #address(node) {
    if (node === this.#state.node?.node) return "";
    return pageOf(this.#addresses.get(node));
  }
}

/** A list whose items stay the same elements as long as their things are there: what has the focus keeps it. */
class List {
  #key;
  #make;
  #items = new Map();
  #list;
  #more = h("p.small.quiet");
  #title = h("h3.heading3");
  #name;
  element;

  constructor(name, kind, key, make) {
    this.#name = name;
    this.#key = key;
    this.#make = make;
    this.#list = h(`ul.${kind}`);
    this.element = h("section", { "aria-label": name }, this.#title, this.#list, this.#more);
  }

  /** Shows things; `sum` is the number of all that there are, also beyond the `shown` ones. */
  show(things, sum, match, what, shown = things.length) {
    say(this.#title, `${this.#name} (${sum.toLocaleString()})`);
    const before = this.#items;
    this.#items = new Map();
    things.forEach((thing, index) => {
      const key = this.#key(thing);
      const item = before.get(key) ?? this.#make(thing);
      before.delete(key);
      this.#items.set(key, item);
      item.update(thing);
      if (this.#list.children[index] !== item.element) this.#list.insertBefore(item.element, this.#list.children[index] ?? null);
    });
    for (const item of before.values()) item.element.remove();
    if (!sum) say(this.#more, match ? `No ${what} has “${match}” in its name.` : `No ${what} yet.`);
    else if (sum > shown) say(this.#more, `These are ${shown.toLocaleString()} of ${sum.toLocaleString()}. Find the others by their name, above.`);
    else say(this.#more, "");
    this.#more.hidden = !this.#more.textContent;
  }
}

/** Cameras without a node, those of one reason together: what is to be done about them is the same. */
function byReason(cameras) {
  const reasons = new Map();
  for (const { name, why } of cameras) reasons.set(why, [...(reasons.get(why) ?? []), name]);
  return [...reasons].map(([why, names]) => ({ why, names }));
}

function unplacedItem({ why }) {
  const names = h("p.small");
  return {
    element: h("li", {}, h("h4", {}, why), names),
    update(one) {
      const more = one.names.length - MOST_NAMES;
      say(names, one.names.slice(0, MOST_NAMES).join(", ") + (more > 0 ? ` and ${more.toLocaleString()} more` : ""));
    },
  };
}

function cameraItem({ name }, address) {
  const link = h("a", {}, name);
  const state = h("span.badge");
  const where = h("span.small.quiet");
  const element = h("li", {}, link, where, state);
  return {
    element,
    update(camera) {
      const page = address(camera.node);
      mark(link, "href", page === null ? null : `${page}#/camera/${encodeURIComponent(name)}`);
      badge(state, camera.state ?? "starting", CAMERA_STATES);
      element.classList.toggle("moving", Boolean(camera.warm));
      mark(where, "title", camera.warm ? `moves from ${camera.node} to ${camera.warm}` : null);
      say(where, camera.warm ? `${camera.node} → ${camera.warm}` : camera.node);
    },
  };
}

function nodeItem({ name }, version, find) {
  const link = h("a", {}, name);
  const state = h("span.badge");
  const full = bar();
  const used = h("span.number.small", { title: "how much of what it is to carry its cameras take" });
  const cameras = h("button.plain.small", { type: "button", title: `Show the cameras of ${name}`, onclick: () => find(name) });
  const more = h("span.small.quiet");
  const why = h("p.small.bad");
  const element = h("li.card", {}, h("div.node-head", {}, h("h4", {}, link), state), h("div.node-load", {}, full.element, used), h("div.node-foot", {}, more, cameras), why);
  return {
    element,
    update(node) {
      mark(link, "href", pageOf(node.url));
      badge(state, node.state, NODE_STATES);
      full.set(node.capacity ? node.used / node.capacity : 0);
      full.element.classList.toggle("over", node.used > node.capacity);
      element.classList.toggle("trouble", BAD.has(node.state));
      say(used, `${figure(node.used)} of ${figure(node.capacity)}`);
      say(cameras, count(node.cameras, "camera"));
      say(more, node.site ?? "");
      const silent = node.state === "away" && node.seen_s !== null ? `not heard of for ${span(Math.round(node.seen_s)).replace(".0", "")}` : "";
      const other = node.version && node.version !== version() ? `visaged ${node.version}` : "";
      say(why, [silent, node.why, other].filter(Boolean).join("; "));
      why.hidden = !why.textContent;
    },
  };
}

function badge(element, state, words) {
  say(element, words[state] ?? state);
  mark(element, "class", BAD.has(state) ? "badge bad" : GOOD.has(state) ? "badge good" : "badge");
}

/** A weight: 7, or 7.5. */
function figure(n) {
  return n.toLocaleString(undefined, { maximumFractionDigits: 1 });
}

/** The address of a node's page, if that is one of the web: another node could name anything. */
function pageOf(url) {
  return /^https?:\/\//.test(url ?? "") ? `${url.replace(/\/$/, "")}/` : null;
}
