// A picture came that says how it was made: its settings, or the picture itself?

import { $, show } from "./dom.js";

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
