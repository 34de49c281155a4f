// A picture of the viewer's own: dropped, pasted or chosen, read by the API, and drawn.
import { ApiError, json } from "../api/client.js";
import { h, say } from "../ui/dom.js";
import { FaceList } from "../ui/face.js";
import { Screen } from "../ui/screen.js";
import { count } from "../ui/words.js";
import { pointsChoice } from "../ui/points.js";

/** Where a picture can be dropped; `taken(file)` is called with it. Also drops and pastes anywhere on the page. */
export function dropZone(taken) {
  const input = h("input.unseen", { type: "file", accept: "image/jpeg,image/png,image/webp,image/bmp" });
  const zone = h("label.drop", {}, input, h("strong", {}, "Drop a picture here"), h("span.quiet", {}, "or choose or paste one. It is read on this machine and not kept."));
  const take = (files) => {
    const file = [...(files ?? [])].find((one) => one.type.startsWith("image/")) ?? files?.[0];
    if (file) taken(file);
  };
  input.addEventListener("change", () => {
    take(input.files);
    input.value = ""; // the same file again is a change too
  });
  addEventListener("paste", (event) => take(event.clipboardData?.files));
  addEventListener("dragover", (event) => {
    if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dropping");
  });
  addEventListener("drop", (event) => {
    document.body.classList.remove("dropping");
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault();
    take(event.dataTransfer.files);
  });
  return h("section.card", { "aria-labelledby": "picture" }, h("h2", { id: "picture" }, "A picture of your own"), zone);
}

/** The view of a picture. */
export class PictureView {
  #title = h("h2", { tabindex: -1 });
  #screen = new Screen("Your picture");
  #faces = new FaceList();
  #words = h("p", { role: "status" });
  #points;
  wanted = [[], 640, 5];
  element;

  constructor(state, file) {
    this.#points = pointsChoice((chosen) => {
      this.#screen.boxes.points = chosen;
      this.#screen.redraw();
    });
    say(this.#title, "Your picture");
    this.#screen.element.classList.add("large");
    this.element = h(
      "section.camera",
      { "aria-label": "Your picture" },
      h("div.heading", {}, h("a.back", { href: "#/" }, "← All cameras"), this.#title),
      h("div.main", {}, this.#screen.element, h("div.row", {}, this.#points, this.#words)),
      h("section.side", { "aria-label": "Faces" }, h("h3.heading3", {}, "Faces"), this.#faces.element),
    );
    this.#points.hidden = true;
    if (file) this.#read(file, state.node?.networks.analyzer ?? null);
    else this.#screen.say("Drop a picture here, or choose one on the first page.");
  }

  focus() {
    this.#title.focus();
  }

  async #read(file, analyzer) {
    say(this.#title, file.name || "Your picture");
    this.#screen.say("Reading its faces …");
    let answer;
    try {
      answer = await faces(file, analyzer);
    } catch (error) {
      const why = error instanceof ApiError ? error.message : "visaged did not answer; it may be stopped";
      this.#screen.say("The picture could not be read:", `${why}.`);
      this.#faces.show(this.#screen, [], "None, as the picture could not be read.");
      return;
    }
    try {
      this.#screen.say();
      await this.#screen.show({ frame: answer.image, faces: answer.faces }, file);
    } catch {
      this.#screen.say("This browser cannot show the picture; its faces are listed all the same.");
    }
    this.#points.hidden = false;
    say(this.#words, `${count(answer.faces.length, "face")} in ${answer.image.width} × ${answer.image.height} px`);
    this.#screen.describe(`Your picture: ${count(answer.faces.length, "face")}`);
    this.#faces.show(this.#screen, answer.faces, "No face was found. They are found from some 20 px on, if they are not turned away.");
  }

  update() {}
  refresh() {}
  note() {}
  show() {}
  close() {}
}

/** Asks for the faces of a picture, with as many points as the networks can give. */
async function faces(file, analyzer) {
  const ask = (points) => json(`v1/faces?landmarks=${points}`, { method: "POST", body: file, headers: { "Content-Type": file.type || "application/octet-stream" } });
  if (!analyzer) return ask(5);
  try {
    return await ask(106);
  } catch (error) {
    if (error.status === 400) return ask(5); // these points are switched off
    throw error;
  }
}
