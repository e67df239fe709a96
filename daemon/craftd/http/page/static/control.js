// A picture of where things are, for a control model to read: chosen or dropped, with what is made of it and its scale.

import { sendPicture } from "./api.js";
import { $, make, show } from "./dom.js";

const KINDS = {
  none: "Nothing: it is a map already", canny: "Edges, one pixel wide", edges: "Outlines of areas", scribble: "Strokes of a sketch",
  tile: "Nothing: it is a picture", invert: "Its negative",
  "depth-map": "Nothing: it is a depth map", "pose-map": "Nothing: it is a pose", "gray-map": "Nothing: it is the picture in gray",
  "blur-map": "Nothing: it is blurred", "low-quality-map": "Nothing: it is of low quality",
};

export class Control {
  #file = null;
  #url = "";
  #sha256 = ""; // by which the daemon has it, once it was sent
  #models = []; // [{name, reads}], for the model that is chosen
  #onChange;

  /** `onChange`: there is another one, or none. */
  constructor({ onChange }) {
    this.#onChange = onChange;
    $("control-kind").replaceChildren(...Object.entries(KINDS).map(([name, text]) => new Option(text, name)));
    $("control").addEventListener("change", () => this.choose($("control").files[0]));
    $("control-kind").addEventListener("change", () => this.#chooseModel());
    $("control-remove").addEventListener("click", () => {
      this.clear();
      $("control").focus();
    });
  }

  get isThere() {
    return this.#file !== null;
  }

  get name() {
    return this.#file?.name || "PICTURE";
  }

  /** Whether it is the one that a job was made with. */
  isOf(controls) {
    return controls.length === Number(this.isThere) && controls.every(({ sha256 }) => sha256 === this.#sha256);
  }

  /** The control models that there are for the model. */
  allow(models) {
    this.#models = models;
    $("control-model").replaceChildren(...models.map(({ name }) => new Option(name, name)));
    show($("controlling"), models.length > 0);
    if (!models.length) this.clear();
    else this.#chooseKind();
  }

  choose(file) {
    if (!file) return;
    this.#empty();
    this.#file = file;
    this.#url = URL.createObjectURL(file);
    this.#show();
  }

  clear() {
    this.#empty();
    this.#show();
  }

  /** What a job says of it; it is sent first. */
  async send() {
    if (!this.isThere) return {};
    this.#sha256 ||= await sendPicture(this.#file, "controls");
    const one = { sha256: this.#sha256, kind: $("control-kind").value, model: $("control-model").value };
    return { controls: [{ ...one, scale: Number($("control-scale").value) }] };
  }

  #empty() {
    URL.revokeObjectURL(this.#url);
    [this.#file, this.#url, this.#sha256] = [null, "", ""];
    $("control").value = "";
  }

  /** What the first control model reads, where craft can make that of a picture. */
  #chooseKind() {
    const reads = this.#models[0].reads;
    $("control-kind").value = reads in KINDS ? reads : "none";
    this.#chooseModel();
  }

  #chooseModel() {
    const fitting = this.#models.find(({ reads }) => reads === $("control-kind").value);
    if (fitting) $("control-model").value = fitting.name;
  }

  #show() {
    show($("control-chosen"), this.isThere);
    $("control-picture").replaceChildren(...(this.isThere ? [make("img", { src: this.#url, alt: `Control picture, ${this.name}` })] : []));
    this.#onChange();
  }
}
