// Whether the picture is enlarged, by what, and how much of it is drawn again then.

import { $, show } from "./dom.js";

const AGAIN = "again"; // the scale's place is taken by it: drawn, enlarged, drawn again

export class Enlarge {
  #drawnAgain = 2; // times as wide and as high

  constructor() {
    $("upscale").addEventListener("change", () => this.#show());
  }

  /** `upscalers`: names, that which is usual first. */
  fill(upscalers) {
    $("upscaler").replaceChildren(...upscalers.map((name) => new Option(name, name)));
  }

  /** Whether a model can draw over what was enlarged. */
  allow(drawsAgain) {
    const option = this.#option(AGAIN);
    option.disabled = option.hidden = !drawsAgain;
    if (!drawsAgain && $("upscale").value === AGAIN) $("upscale").value = "";
    this.#show();
  }

  /** As a job has it. */
  value() {
    const scale = $("upscale").value;
    const name = $("upscaler").value;
    if (scale === AGAIN) return { hires: { scale: this.#drawnAgain, strength: Number($("hires-strength").value), upscaler: name } };
    return scale ? { upscale: { scale: Number(scale), model: name } } : {};
  }

  restore({ upscale, hires }) {
    this.#drawnAgain = hires?.scale ?? 2;
    this.#option(AGAIN).textContent = `${this.#drawnAgain} times, drawn again`;
    const scale = upscale?.scale ?? "";
    if (!this.#option(scale)) this.#option(AGAIN).before(new Option(`${scale} times`, scale));
    $("upscale").value = hires ? AGAIN : scale;
    $("upscaler").value = hires?.upscaler ?? upscale?.model ?? "";
    if (!$("upscaler").value) $("upscaler").selectedIndex = 0;
    if (hires) $("hires-strength").value = hires.strength;
    this.#show();
  }

  #option(scale) {
    return [...$("upscale").options].find((one) => one.value === String(scale));
  }

  #show() {
    show($("enlarged-by"), Boolean($("upscale").value));
    show($("drawn-again"), $("upscale").value === AGAIN);
  }
}
