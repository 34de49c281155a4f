// Elements without HTML strings: whatever comes from outside becomes text or an attribute, never markup.

/**
 * Makes an element.
 * @param {string} tag Name of the element, perhaps with classes: "p.small.quiet".
 * @param {object} [attributes] `on...` adds a listener; true sets an empty attribute; null and false leave one out.
 * @param {...(Node|string|number|null)} children
 */
export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag.split(".")[0]), tag, attributes, children);
}

/** Makes an element of SVG, as `h` does. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag.split(".")[0]);
  return filled(element, tag, attributes, children);
}

function filled(element, tag, attributes, children) {
  const classes = tag.split(".").slice(1);
  if (classes.length) element.setAttribute("class", classes.join(" "));
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets the text of an element if it is another one: unchanged nodes cost no layout and are not read out again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets an attribute if it is another one; null removes it. */
export function mark(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** Tells users of a screen reader something that others see. */
export function announce(text) {
  say(document.getElementById("said"), text);
}

/** A button that copies a text, and says that it did. */
export function copyButton(label, text) {
  const button = h("button", { type: "button", onclick: copy }, label);
  async function copy() {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Copying is not allowed here: select the text"; // needs https or localhost
    }
    setTimeout(() => (button.textContent = label), 3000);
  }
  return button;
}

/** A line of a shell with a button to copy it. */
export function command(text) {
  return h("div.command", {}, h("code", { tabindex: 0 }, text), copyButton("Copy", () => text));
}

/** Asks a question; resolves to whether the answer was yes. */
export function confirmed(question, yes) {
  const dialog = h("dialog", { "aria-label": question });
  const answer = (value) => () => dialog.close(value);
  dialog.append(
    h("p", {}, question),
    h(
      "div.row",
      {},
      h("button.danger", { type: "button", onclick: answer("yes") }, yes),
      h("button", { type: "button", autofocus: true, onclick: answer("no") }, "Cancel"),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
  });
}
