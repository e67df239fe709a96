// The settings of a picture that any program drew, for the form.

import { $, make } from "./dom.js";

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
