// The model's sizes as shapes to choose, and a swap of width and height.

import { $, make } from "./dom.js";

const DRAWN = 26; // pixels, of a shape's longer side

export class Shapes {
  #onChoose;

  /** `onChoose` gets "224x288". */
  constructor({ onChoose, onSwap }) {
    this.#onChoose = onChoose;
    $("swap").addEventListener("click", onSwap);
  }

  /** `sizes`: [[name, width, height]]. */
  fill(sizes) {
    $("shapes").replaceChildren(...sizes.map((one) => this.#shape(...one)));
  }

  /** What is chosen: a shape, or none of them; pictures decide where `isFree` is false. */
  show(value, isFree) {
    for (const radio of $("shapes").querySelectorAll("input")) radio.checked = radio.value === value;
    $("swap").disabled = !isFree;
  }

  #shape(name, width, height) {
    const text = `${name}, ${width} × ${height}`;
    const radio = make("input", { type: "radio", name: "shape", value: `${width}x${height}` });
    radio.setAttribute("aria-label", text);
    radio.addEventListener("change", () => this.#onChoose(radio.value));
    const drawn = make("span", {});
    const scale = DRAWN / Math.max(width, height) * (name.startsWith("Small") ? 0.6 : 1);
    drawn.style.width = `${Math.round(scale * width)}px`;
    drawn.style.height = `${Math.round(scale * height)}px`;
    return make("label", { className: "shape", title: text }, radio, drawn);
  }
}
