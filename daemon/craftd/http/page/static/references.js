// Pictures that the model is shown, in their order: chosen, dropped or pasted.

import { sendPicture } from "./api.js";
import { $, make, show } from "./dom.js";

export class References {
  #shown = []; // [{file, url, sha256}], in their order; sha256: by which the daemon has it, once it was sent
  #most = 0;
  #onChange;
  #onProblem;

  /** `onChange`: there are others, or none; `onProblem` gets {message, hint, field}. */
  constructor({ onChange, onProblem }) {
    this.#onChange = onChange;
    this.#onProblem = onProblem;
    $("references").addEventListener("change", () => {
      this.add([...$("references").files]);
      $("references").value = "";
    });
  }

  get areThere() {
    return this.#shown.length > 0;
  }

  /** Whether the model can be shown any. */
  get isAllowed() {
    return this.#most > 0;
  }

  get names() {
    return this.#shown.map(({ file }) => file.name || "PICTURE");
  }

  /** Whether these are those that a job was made from. */
  isOf(references) {
    return references.length === this.#shown.length && references.every(({ sha256 }, place) => sha256 === this.#shown[place].sha256);
  }

  /** How many pictures the model can be shown. */
  allow(most) {
    this.#most = most;
    show($("showing"), most > 0);
    $("references").multiple = most > 1;
    for (const { url } of this.#shown.splice(most)) URL.revokeObjectURL(url);
    this.#show();
  }

  /** More of them; where there is room for one alone, the last. */
  async add(files) {
    for (const file of files) {
      const one = { file, url: URL.createObjectURL(file), sha256: "" };
      if (!(await isPicture(one.url))) {
        URL.revokeObjectURL(one.url);
        this.#onProblem({ message: `${file.name || "What came"} is no picture that can be shown.`, hint: "Take a PNG, JPEG or WebP.", field: "references" });
        return;
      }
      if (this.#most === 1) this.#empty();
      if (this.#shown.length === this.#most) {
        this.#onProblem({ message: `This model can be shown ${this.#most} pictures.`, hint: "Remove one first.", field: "references" });
        return;
      }
      this.#shown.push(one);
    }
    this.#onProblem(null);
    this.#show();
  }

  clear() {
    this.#empty();
    this.#show();
  }

  /** What a job says of them; they are sent first. */
  async send() {
    for (const one of this.#shown) one.sha256 ||= await sendPicture(one.file, "references");
    return this.areThere ? { references: this.#shown.map(({ sha256 }) => ({ sha256 })) } : {};
  }

  #empty() {
    for (const { url } of this.#shown.splice(0)) URL.revokeObjectURL(url);
  }

  #move(one, by) {
    const place = this.#shown.indexOf(one);
    this.#shown.splice(place, 1);
    this.#shown.splice(place + by, 0, one);
    this.#show();
    const buttons = [...$("reference-list").children[place + by].querySelectorAll("button")];
    (buttons[by < 0 ? 0 : 1].disabled ? buttons[by < 0 ? 1 : 0] : buttons[by < 0 ? 0 : 1]).focus();
  }

  #remove(one) {
    this.#shown.splice(this.#shown.indexOf(one), 1);
    URL.revokeObjectURL(one.url);
    this.#show();
    $("references").focus();
  }

  #show() {
    $("reference-list").replaceChildren(...this.#shown.map((one, place) => this.#row(one, place)));
    this.#onChange();
  }

  #row(one, place) {
    const name = `picture ${place + 1}`;
    const button = (text, label, onClick, isDisabled = false) => {
      const made = make("button", { type: "button", textContent: text, disabled: isDisabled });
      made.setAttribute("aria-label", label);
      made.addEventListener("click", onClick);
      return made;
    };
    return make("li", {}, make("img", { src: one.url, alt: `Picture ${place + 1}, ${one.file.name}` }),
      make("span", { className: "row actions" },
        button("↑", `Move ${name} up`, () => this.#move(one, -1), place === 0),
        button("↓", `Move ${name} down`, () => this.#move(one, 1), place === this.#shown.length - 1),
        button("Remove", `Remove ${name}`, () => this.#remove(one))));
  }
}

async function isPicture(url) {
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
    return true;
  } catch {
    return false;
  }
}
