// What is known of the daemon, and who is told when it changes.
import { json } from "./api/client.js";
import { inTrouble } from "./ui/words.js";

/** Tells `node`, `cameras`, `connection` (no data) and `face` (detail: an event). */
export class State extends EventTarget {
  node = null;
  session = { required: false, name: null, role: null };
  /** @type {Map<string, object>} Cameras by name. */
  cameras = new Map();
  /** Whether the events come; else since when not, why, and when it is tried again. */
  connection = { good: true, since: null, error: null, next: null };

  /** Asks for the node and all cameras. */
  async load() {
    const [node, answer] = await Promise.all([json("v1/node"), json("v1/cameras")]);
    this.node = node;
    this.tell("node");
    this.setCameras(answer.cameras);
  }

  async loadCameras() {
    this.setCameras((await json("v1/cameras")).cameras);
  }

  setCameras(list) {
    this.cameras = new Map(list.map((camera) => [camera.camera, camera]));
    this.tell("cameras");
  }

  setCamera(camera) {
    this.cameras.set(camera.camera, camera);
    this.tell("cameras");
  }

  removeCamera(name) {
    if (this.cameras.delete(name)) this.tell("cameras");
  }

  setConnection(good, error = null, seconds = 0) {
    const since = good ? null : (this.connection.since ?? new Date());
    this.connection = { good, since, error, next: good ? null : Date.now() + seconds * 1000 };
    this.tell("connection");
  }

  /** Whether this viewer may delete: as the API decides it, so that nobody is offered what is refused. */
  get mayChange() {
    if (this.session.required) return this.session.role === "admin";
    return /^(localhost|127\..*|\[::1\])$/.test(location.hostname);
  }

  get troubled() {
    return [...this.cameras.values()].filter(inTrouble);
  }

  get facesNow() {
    return [...this.cameras.values()].reduce((sum, camera) => sum + (camera.tracks ?? 0), 0);
  }

  tell(kind, detail = null) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}
