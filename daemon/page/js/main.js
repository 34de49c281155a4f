// Puts the page together: who may see it, what is asked for, and which view is shown.
import { json } from "./api/client.js";
import { Events } from "./api/events.js";
import { Live } from "./api/live.js";
import { PageFrame } from "./frame.js";
import { State } from "./state.js";
import { CameraView } from "./views/camera.js";
import { FleetView } from "./views/fleet.js";
import { Home } from "./views/home.js";
import { Login } from "./views/login.js";
import { PictureView } from "./views/picture.js";

const POLL_MS = 3000; // rates and ages are in no event

class App {
  #state = new State();
  #main = document.getElementById("main");
  #frame = new PageFrame(this.#state, () => this.#hurry());
  #live = new Live(
    (picture, blob) => Promise.resolve(this.#view.show(picture, blob)).catch((error) => console.error(error)),
    (error) => this.#pictureless(error),
  );
  #events = new Events(
    {
      face: (event) => this.#state.tell("face", event),
      camera: (camera) => this.#state.setCamera(camera),
      removed: ({ camera }) => this.#state.removeCamera(camera),
      gap: () => this.#home.load(),
    },
    () => this.#opened(),
    (error, seconds) => this.#lost(error, seconds),
  );
  #home = new Home(
    this.#state,
    (...wanted) => this.#view === this.#home && this.#live.watch(...wanted),
    (file) => this.#take(file),
  );
  #view = this.#home;
  #file = null;
  #runs = false;
  #poll = null;
  #tick = null;
  #fresh = true;

  constructor() {
    this.#state.addEventListener("cameras", () => this.#updateSoon());
    addEventListener("hashchange", () => this.#route());
    addEventListener("online", () => this.#hurry());
    addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !document.querySelector("dialog") && this.#view !== this.#home && this.#runs) location.hash = "#/";
    });
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#pause() : this.begin()));
    document.querySelector(".skip").addEventListener("click", (event) => {
      event.preventDefault();
      this.#main.focus();
    });
    document.getElementById("logout").addEventListener("click", () => this.#logout());
  }

  /** Asks who the viewer is, and then for everything; or for a key. */
  async begin() {
    try {
      this.#state.session = await json("v1/session");
    } catch (error) {
      return this.#again(error);
    }
    const { required, name } = this.#state.session;
    const logout = document.getElementById("logout");
    logout.hidden = !name;
    logout.title = name ? `You are logged in as ${name}` : "";
    if (required && !name) return this.#login();
    try {
      await this.#state.load();
    } catch (error) {
      return error.status === 401 ? this.#login() : this.#again(error);
    }
    if (document.hidden) return undefined;
    return this.#resume();
  }

  /** The daemon did not answer: it is asked again until it does. */
  #again(error) {
    const waits = 3;
    this.#state.setConnection(false, error, waits);
    this.#startTick();
    clearTimeout(this.#poll);
    this.#poll = setTimeout(() => !document.hidden && this.begin(), waits * 1000);
  }

  #resume() {
    const first = !this.#runs;
    this.#runs = true;
    this.#state.setConnection(true);
    this.#startTick();
    this.#schedulePoll();
    this.#events.start();
    this.#live.start();
    if (first && !this.#home.element.isConnected) this.#route(false);
    this.#fill();
    this.#fresh = false;
  }

  /** Asks for what happened, unless the stream tells all of it. */
  #fill() {
    if (this.#fresh || !this.#events.resumes) this.#home.load();
    else this.#home.resume();
  }

  /** Says why there are no pictures. Where nothing comes at all, the banner says it and the last ones stay. */
  #pictureless(error) {
    const words = error?.status ? error.message : error && "the connection broke, and is tried again";
    this.#view.note(words && this.#state.connection.good ? `No pictures: ${words}.` : null);
  }

  #pause() {
    this.#runs = false;
    this.#events.stop();
    this.#live.stop();
    this.#home.stop();
    clearTimeout(this.#poll);
    clearInterval(this.#tick);
  }

  #hurry() {
    if (!this.#runs) this.begin();
    this.#events.hurry();
    this.#live.hurry();
  }

  async #opened() {
    if (this.#state.connection.good) return;
    this.#state.setConnection(true);
    this.#live.hurry();
    this.#schedulePoll();
    this.#fill();
    await this.#state.load().catch(() => {});
  }

  #lost(error, seconds) {
    if (error.status === 401) return this.#login();
    this.#view.note(null);
    return this.#state.setConnection(false, error, seconds);
  }

  #schedulePoll() {
    clearTimeout(this.#poll);
    this.#poll = setTimeout(async () => {
      if (!this.#runs || !this.#state.connection.good) return;
      await this.#state.load().catch((error) => error.status === 401 && this.#login());
      if (this.#runs) this.#schedulePoll();
    }, POLL_MS);
  }

  #startTick() {
    clearInterval(this.#tick);
    this.#tick = setInterval(() => {
      this.#view.refresh();
      if (!this.#state.connection.good) this.#frame.banner();
    }, 1000);
  }

  /** Many cameras that change at once are drawn once. */
  #updateSoon() {
    if (this.#drawing) return;
    this.#drawing = requestAnimationFrame(() => {
      this.#drawing = 0;
      this.#home.update();
      if (this.#view === this.#home) return;
      this.#view.update();
      this.#live.watch(...this.#view.wanted);
    });
  }
  #drawing = 0;

  #take(file) {
    if (!this.#runs) return;
    this.#file = file;
    if (location.hash === "#/picture") this.#route();
    else location.hash = "#/picture";
  }

  #login() {
    if (this.#runs) return location.reload(); // nothing of what was shown stays, on the page or in memory
    this.#pause();
    this.#fresh = true;
    this.#state.setConnection(true);
    this.#home.element.remove();
    return this.#change(new Login(() => this.begin()));
  }

  async #logout() {
    await json("v1/session", { method: "DELETE" }).catch(() => {});
    location.hash = "#/";
    location.reload(); // so that nothing of what was shown stays in memory
  }

  #route(moved = true) {
    if (!this.#runs) return;
    const [, kind, name] = /^#\/(camera|picture|fleet)?\/?(.*)$/.exec(location.hash || "#/") ?? [];
    if (kind === undefined && location.hash !== "" && location.hash !== "#/") return;
    if (!this.#home.element.isConnected) this.#main.replaceChildren(this.#home.element);
    if (kind === "camera" && name) this.#change(new CameraView(this.#state, decoded(name)));
    else if (kind === "picture") this.#change(new PictureView(this.#state, this.#file));
    else if (kind === "fleet") this.#change(new FleetView(this.#state));
    else this.#change(this.#home);
    if (kind !== "picture") this.#file = null;
    if (moved) this.#view.focus(); // of a page that was just opened, the browser has it
  }

  #change(view) {
    if (this.#view !== this.#home) {
      this.#view.close();
      this.#view.element.remove();
    }
    this.#view = view;
    this.#home.element.hidden = view !== this.#home;
    if (view !== this.#home) this.#main.append(view.element);
    document.getElementById("starting")?.remove();
    view.update();
    if (view.wanted) this.#live.watch(...view.wanted);
    if (view instanceof Login) view.focus();
    if (view !== this.#home) scrollTo(0, 0);
  }
}

function decoded(name) {
  try {
    return decodeURIComponent(name);
  } catch {
    return name; // not made by this page
  }
}

new App().begin();
