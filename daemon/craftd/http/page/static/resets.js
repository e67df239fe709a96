// A button beside each field that was changed, which gives it back what the model says.

import { $, make, show } from "./dom.js";

const FIELDS = ["negative_prompt", "size", "steps", "guidance_scale", "count", "sampler", "upscale", "seed", "true_cfg_scale", "refiner"];
const EMPTY = { count: "1" };

export class Resets {
  #defaults = {};
  #buttons = new Map();

  constructor() {
    for (const name of FIELDS) this.#buttons.set(name, this.#button(name));
    $("wish").addEventListener("input", () => this.update());
    $("wish").addEventListener("change", () => this.update());
  }

  /** `defaults`: of the model, as GET /choices has them. */
  fill(defaults) {
    this.#defaults = { ...defaults, size: `${defaults.width}x${defaults.height}` };
    this.update();
  }

  update() {
    for (const [name, button] of this.#buttons) show(button, $(name).value !== this.#usual(name));
  }

  #usual(name) {
    return String(this.#defaults[name] ?? EMPTY[name] ?? "");
  }

  #button(name) {
    const label = $(name).labels[0];
    const button = make("button", { type: "button", className: "reset", textContent: "↺", title: "As usual" });
    label.id ||= `${name}-label`;
    button.setAttribute("aria-label", "Reset");
    button.setAttribute("aria-describedby", label.id);
    button.addEventListener("click", () => {
      $(name).value = this.#usual(name);
      for (const kind of ["change", "input"]) $(name).dispatchEvent(new Event(kind, { bubbles: true }));
      $(name).focus();
    });
    label.after(button);
    return button;
  }
}
