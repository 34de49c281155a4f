// The form for the key, where the API asks for one.
import { json } from "../api/client.js";
import { h, say } from "../ui/dom.js";

/** The form; `done` is called after a login. */
export class Login {
  #key = h("input", { type: "password", id: "key", name: "key", autocomplete: "current-password", required: true, spellcheck: "false" });
  #words = h("p.bad", { role: "alert", id: "why" });
  #button = h("button.primary", { type: "submit" }, "Log in");
  wanted = [[], 640, 5];
  element;

  constructor(done) {
    this.element = h(
      "form.card.login",
      { onsubmit: (event) => this.#submit(event, done) },
      h("h2", {}, "Log in"),
      h("p", {}, "This server asks for an API key. The browser keeps no copy of it, only a cookie of this session."),
      h("input", { type: "text", name: "username", autocomplete: "username", value: "visaged", hidden: true }), // for password managers
      h("label", { for: "key" }, "API key"),
      this.#key,
      this.#words,
      this.#button,
      h("p.small.quiet", {}, "No key? On the server, ", h("code", {}, "visaged key NAME"), " makes one."),
    );
  }

  focus() {
    this.#key.focus();
  }

  async #submit(event, done) {
    event.preventDefault();
    this.#button.disabled = true;
    say(this.#words, "");
    try {
      await json("v1/session", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ key: this.#key.value }) });
      this.#key.value = "";
      done();
    } catch (error) {
      say(this.#words, `Not logged in: ${error.message}.`);
      this.#key.setAttribute("aria-describedby", "why");
      this.#key.select();
    } finally {
      this.#button.disabled = false;
    }
  }

  update() {}
  refresh() {}
  note() {}
  show() {}
  close() {}
}
