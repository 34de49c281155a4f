// What stands where cameras would, as long as there is none.
import { command, h } from "./dom.js";

const CONFIGURATION = `cameras:
  - name: entrance
    url: "rtsp://192.0.2.10:554/stream2"
    username: viewer
    password_env: ENTRANCE_PASSWORD
    fps: 5`;

/** How to add a camera. */
export function noCamera() {
  const address = location.href.split("#")[0];
  const body = JSON.stringify({ name: "entrance", url: "rtsp://192.0.2.10:554/stream2", fps: 5 });
  return h(
    "div.card.none",
    { hidden: true },
    h("h3", {}, "No camera yet"),
    h("p", {}, "Add one to the running daemon; it appears here by itself. With keys, send one with the role admin."),
    command(`curl -X POST ${address}v1/cameras -H 'Content-Type: application/json' --data '${body}'`),
    h("p", {}, "For good, write it into the configuration and reload that:"),
    h("pre", { tabindex: 0 }, CONFIGURATION),
    h("p.quiet", {}, "No camera at hand? Drop a picture on this page, and its faces are read in the same way."),
  );
}

/** What stands there on a node of a fleet that holds no camera now. */
export function noCameraHere() {
  return h(
    "div.card.spare",
    { hidden: true },
    h("h3", {}, "No camera on this node now"),
    h("p", {}, "The fleet gives its cameras to the nodes that have room for them. ", h("a", { href: "#/fleet" }, "See the whole fleet"), "."),
    h("p.quiet", {}, "Cameras come and go with visaged fleet add and visaged fleet remove."),
  );
}
