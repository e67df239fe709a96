// The settings of a picture that any program drew, for the form.

import { $, make, show } from "./dom.js";

export class Like {
  onFile = () => {}; // a picture was chosen or dropped

  constructor() {
    $("like").addEventListener("change", () => $("like").files[0] && this.choose($("like").files[0]));
  }

  choose(file) {
    this.clear();
    this.onFile(file);
  }

  clear() {
    $("like").value = "";
    $("like-said").replaceChildren();
  }

  /** Whose picture it is, and what of it is lost: `found` as POST /recipes has it, `lacking` what the form has no place for. */
  tell(name, { program, missing, not_honoured: notHonoured }, lacking) {
    const whose = program === "craft" ? `Filled in from ${name}.` : `Filled in from ${name}, a picture of ${program}: drawn again, it will be alike, not the same.`;
    const lost = [
      ...missing.map(({ what, how }) => `Not here: ${what}. ${how}`),
      ...[...lacking, ...notHonoured].map((one) => `Not honoured: ${one}`),
    ];
    $("like-said").replaceChildren(make("p", { textContent: whose }),
      make("ul", {}, ...lost.map((textContent) => make("li", { textContent }))));
  }
}

/** A picture came that says how it was made: its settings, or the picture itself? */
export class Asking {
  #answers = {};

  constructor() {
    for (const id of ["asking-settings", "asking-begin"]) {
      $(id).addEventListener("click", () => this.#end(this.#answers[id]));
    }
    $("asking-neither").addEventListener("click", () => this.#end(() => $("prompt").focus()));
  }

  /** `begin` is null where the model takes no pictures. */
  ask(text, settings, begin) {
    this.#answers = { "asking-settings": settings, "asking-begin": begin };
    $("asking-said").textContent = text;
    show($("asking-begin"), begin !== null);
    show($("asking"), true);
    $("asking-settings").focus();
  }

  clear() {
    this.#answers = {};
    show($("asking"), false);
  }

  #end(answer) {
    this.clear();
    answer?.();
  }
}
