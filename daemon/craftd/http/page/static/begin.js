// The picture that drawing begins from, and a mask on it.

import { sendPicture } from "./api.js";
import { $, show } from "./dom.js";
import { Mask } from "./mask.js";

const STRENGTH = 0.8;
const STRENGTH_WITH_MASK = 1;

export class Begin {
  #file = null;
  #url = "";
  #sent = ""; // the sha256 by which the daemon has it
  #isOwnStrength = false; // chosen by hand
  #onChange;
  #onProblem;
  #mask = new Mask(() => this.#showStrength());

  /** `onChange`: there is another picture, or none; `onProblem` gets {message, hint, field}. */
  constructor({ onChange, onProblem }) {
    this.#onChange = onChange;
    this.#onProblem = onProblem;
    $("start").addEventListener("change", () => $("start").files[0] && this.choose($("start").files[0]));
    $("start-remove").addEventListener("click", () => {
      this.clear();
      $("start").focus();
    });
    for (const [one, other] of [["strength", "strength-exact"], ["strength-exact", "strength"]]) {
      $(one).addEventListener("input", () => {
        this.#isOwnStrength = true;
        $(other).value = $(one).value;
      });
    }
    show($("picture"), false);
  }

  get isThere() {
    return this.#file !== null;
  }

  get name() {
    return this.#file.name || "PICTURE";
  }

  /** A URL of the picture that a job began from, if it is this one. */
  urlOf(start) {
    return this.isThere && start && start.sha256 === this.#sent ? this.#url : "";
  }

  /** Whether the model can begin from pictures, and from a part of one. */
  allow(areStarts, areMasks) {
    show($("begin"), areStarts);
    for (const one of document.querySelectorAll(".masking")) show(one, areMasks);
    if (!areStarts) this.clear();
    else if (!areMasks) this.#mask.begin($("board").width, $("board").height);
  }

  async choose(file) {
    const url = URL.createObjectURL(file);
    $("start-shown").src = url;
    try {
      await $("start-shown").decode();
    } catch {
      URL.revokeObjectURL(url);
      this.clear();
      this.#onProblem({ message: `${file.name || "What came"} is no picture that can be shown.`, hint: "Take a PNG, JPEG or WebP.", field: "start" });
      return;
    }
    if (this.#url) URL.revokeObjectURL(this.#url);
    [this.#file, this.#url, this.#sent, this.#isOwnStrength] = [file, url, "", false];
    this.#mask.begin($("start-shown").naturalWidth, $("start-shown").naturalHeight);
    show($("picture"), true);
    $("start-said").textContent = `${$("start-shown").naturalWidth} × ${$("start-shown").naturalHeight}`;
    this.#onProblem(null);
    this.#onChange();
  }

  clear() {
    if (this.#url) URL.revokeObjectURL(this.#url);
    [this.#file, this.#url, this.#sent] = [null, "", ""];
    $("start").value = "";
    $("start-shown").removeAttribute("src");
    show($("picture"), false);
    this.#onChange();
  }

  /** What a job says of it; the picture and its mask are sent first. */
  async send() {
    if (!this.isThere) return {};
    const painted = await this.#mask.picture();
    this.#sent = await sendPicture(this.#file, "start");
    const start = { sha256: this.#sent, strength: Number($("strength").value) };
    return painted ? { start, mask: { sha256: await sendPicture(painted, "start") } } : { start };
  }

  #showStrength() {
    if (this.#isOwnStrength) return;
    $("strength").value = $("strength-exact").value = this.#mask.isEmpty ? STRENGTH : STRENGTH_WITH_MASK;
  }
}
