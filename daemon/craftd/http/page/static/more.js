// Fields that few pictures need: wildcards, true guidance, the refiner, and whether whoever has a link sees the picture.

import { $, show } from "./dom.js";

const SWITCH = 0.8;

export class More {
  constructor() {
    $("refiner").addEventListener("change", () => this.#show());
  }

  /** `refiners`: names of models. */
  fill(refiners) {
    $("refiner").replaceChildren(new Option("None", ""), ...refiners.map((name) => new Option(name, name)));
  }

  /** `takes`: the fields that the model understands, of those that not all do. */
  allow(takes) {
    const isRefined = takes.includes("refiner") && $("refiner").options.length > 1;
    show($("true-guidance"), takes.includes("true_cfg_scale"));
    show($("refining"), isRefined);
    if (!takes.includes("true_cfg_scale")) $("true_cfg_scale").value = "";
    if (!isRefined) $("refiner").value = "";
    this.#show();
  }

  /** As a job has them. */
  value() {
    const refiner = $("refiner").value;
    const guidance = $("true_cfg_scale").value;
    return {
      wildcards: $("wildcards").checked,
      ...(guidance && { true_cfg_scale: Number(guidance) }),
      ...(refiner && { refiner: { model: refiner, switch: Number($("refiner-switch").value) } }),
    };
  }

  restore({ wildcards, true_cfg_scale: guidance, refiner }) {
    $("wildcards").checked = Boolean(wildcards);
    $("true_cfg_scale").value = $("true-guidance").hidden || guidance === 1 ? "" : guidance ?? "";
    $("refiner").value = refiner?.model ?? "";
    if ($("refiner").selectedIndex < 0) $("refiner").value = "";
    $("refiner-switch").value = refiner?.switch ?? SWITCH;
    this.#show();
  }

  #show() {
    show($("refined-after"), Boolean($("refiner").value));
  }
}
