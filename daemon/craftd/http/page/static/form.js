// What to draw: the form's fields, filled from what the chosen model can.

import { Begin } from "./begin.js";
import { Control } from "./control.js";
import { $, make, show, tellProblem } from "./dom.js";
import { keep, recall } from "./memory.js";
import { Enlarge } from "./enlarge.js";
import { Asking, Like } from "./like.js";
import { More } from "./more.js";
import { pictureAt } from "./pictures.js";
import { References } from "./references.js";
import { Resets } from "./resets.js";
import { Shapes } from "./shapes.js";
import { Shelf } from "./shelf.js";

const SHAPES = {
  square_hd: "Square", square: "Small square",
  portrait_4_3: "Portrait 3:4", portrait_16_9: "Portrait 9:16", landscape_4_3: "Landscape 4:3", landscape_16_9: "Landscape 16:9",
};
const PLAIN = ["prompt", "negative_prompt", "count", "width", "height", "steps", "guidance_scale", "sampler", "seed"];
const AS_PICTURE = "picture"; // the size follows from it
const MANY_LORAS = 8; // beyond them there is a search
const SEED_LIMIT = 2 ** 53;

export class Form {
  #choices;
  #loras = []; // [{lora, weight}], as chosen
  begin = new Begin({ onChange: () => this.#onPicture(), onProblem: (problem) => this.tell(problem) });
  references = new References({ onChange: () => this.#onPicture(), onProblem: (problem) => this.tell(problem) });

  control = new Control({ onChange: () => this.#onPicture() });

  like = new Like();

  asking = new Asking();

  #enlarge = new Enlarge();
  #more = new More();
  #resets = new Resets();
  #shapes = new Shapes({ onChoose: (size) => this.#chooseSize(size), onSwap: () => this.#chooseSize(`${$("height").value}x${$("width").value}`) });
  #shelf = new Shelf({
    settings: () => this.#settings(),
    onPrompt: (text) => this.showPrompt(text),
    onPreset: (preset) => this.restore({ ...preset, prompt: $("prompt").value, seed: $("seed").value }),
  });
  onDropped = (file, accept) => accept?.(); // a picture came, and nobody said what for

  constructor(onSubmit) {
    $("wish").addEventListener("submit", (event) => {
      event.preventDefault();
      onSubmit();
    });
    $("wish").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("wish").requestSubmit();
    });
    $("wish").addEventListener("input", () => this.#keep());
    $("model").addEventListener("change", () => this.#onModel());
    $("size").addEventListener("change", () => this.#onSize());
    $("lora-search").addEventListener("input", () => this.#showLoras());
    $("lora").addEventListener("change", () => this.#showPreview());
    $("lora-add").addEventListener("click", () => this.#addChosenLora());
    document.addEventListener("paste", (event) => this.#take(event, event.clipboardData));
    document.addEventListener("drop", (event) => this.#take(event, event.dataTransfer));
    document.addEventListener("dragover", (event) => event.dataTransfer.types.includes("Files") && event.preventDefault());
    $("shortcut").textContent = /Mac|iP(hone|ad)/.test(navigator.platform) ? "⌘⏎" : "Ctrl ⏎";
    show($("shortcut"), matchMedia("(hover: hover)").matches);
  }

  /** `choices`: as GET /choices has them. What was in the form when it was left comes back. */
  fill(choices) {
    this.#choices = choices;
    $("model").replaceChildren(...choices.models.map((model) => new Option(model.name, model.name)));
    this.#enlarge.fill(choices.upscalers);
    this.#more.fill(choices.refiners);
    this.#shelf.show();
    $("count").max = choices.limits.max_count;
    $("steps").max = choices.limits.max_steps;
    $("prompt").maxLength = $("negative_prompt").maxLength = choices.limits.max_prompt_chars;
    $("model").value = choices.default_model;
    if (!this.model) $("model").selectedIndex = 0;
    this.#onModel();
    const kept = recall("form");
    if (kept) this.restore(kept);
  }

  get model() {
    return this.#choices.models.find((model) => model.name === $("model").value);
  }

  /** The body of POST /jobs. Empty fields are the model's own. Throws {message, hint, field}. */
  value() {
    const wish = { model: $("model").value, loras: this.#loras.map(({ lora, weight }) => ({ lora: lora.id, weight })) };
    for (const name of PLAIN) {
      if (["width", "height"].includes(name) && $("size").value === AS_PICTURE) continue;
      const text = $(name).value;
      if (["prompt", "negative_prompt", "sampler"].includes(name)) wish[name] = text;
      else if (text.trim() || $(name).validity.badInput) wish[name] = number(name, text);
    }
    if (!wish.prompt.trim() && !this.begin.isThere) throw { message: "The prompt is empty.", hint: "Say what to draw.", field: "prompt" };
    return Object.assign(wish, this.#enlarge.value(), this.#more.value(), this.#shelf.styled(wish), { public: $("public").checked });
  }

  /** The wish is a job now. */
  noteSent() {
    this.#shelf.note($("prompt").value);
  }

  /** Fill in what a picture was made from: as value() gives it, or as a job's spec has it. */
  restore(wish) {
    if (this.#choices.models.some((model) => model.name === wish.model)) {
      $("model").value = wish.model;
      this.#onModel();
    }
    if (wish.sampler && ![...$("sampler").options].some((one) => one.value === wish.sampler)) $("sampler").append(new Option(wish.sampler, wish.sampler));
    for (const name of PLAIN) if (wish[name] !== undefined) $(name).value = wish[name];
    this.#enlarge.restore(wish);
    this.#more.restore(wish);
    this.#shelf.style = wish.style ?? "";
    if (!$("sampler").value) $("sampler").value = this.model?.defaults.sampler ?? "";
    this.#loras = [];
    for (const use of wish.loras ?? []) {
      const lora = this.model?.loras.find((one) => one.id === (use.lora ?? use.id));
      if (lora) this.#loras.push({ lora, weight: use.weight });
    }
    this.#showLoras();
    this.#showSize();
    this.#keep();
  }

  /** Fill in what another picture says, as POST /recipes has it; what it says and the form has no place for. */
  fillIn(wish) {
    const told = Object.fromEntries(Object.entries(wish).filter(([, value]) => value !== null && value !== ""));
    if (told.model && !this.#choices.models.some((model) => model.name === told.model)) delete told.model;
    $("model").value = told.model ?? $("model").value;
    this.#onModel();
    this.restore({ seed: "", negative_prompt: "", ...told, count: 1 });
    const lacking = ["clip_skip", "guidance_rescale", "prompt_syntax"].filter((name) => name in told && told[name] !== "craft").map((name) => `${name}: ${told[name]}: the form has no field for it`);
    const unfit = wish.loras.filter(({ lora }) => !this.#loras.some((use) => use.lora.id === lora));
    return [...lacking, ...unfit.map(({ name }) => `LoRA ${name}: it does not fit the model`)];
  }

  showPrompt(text) {
    $("prompt").value = text;
    this.#keep();
  }

  tell(problem) {
    for (const control of $("wish").querySelectorAll("[aria-invalid]")) {
      control.removeAttribute("aria-invalid");
      control.removeAttribute("aria-describedby");
    }
    const control = problem?.field && $("wish").elements.namedItem(problem.field);
    tellProblem($("wish-error"), problem && { ...problem, message: labelled(problem, control), hint: problem.hint });
    if (control instanceof Element) {
      control.setAttribute("aria-invalid", "true");
      control.setAttribute("aria-describedby", "wish-error");
      if (control.closest("[hidden]")) this.#openCustomSize();
      control.focus();
    }
  }

  set isBusy(isBusy) {
    $("generate").setAttribute("aria-disabled", isBusy);
  }

  get isBusy() {
    return $("generate").getAttribute("aria-disabled") === "true";
  }

  #keep() {
    keep("form", { ...this.#settings(), prompt: $("prompt").value, seed: $("seed").value });
    this.#resets.update();
  }

  #settings() {
    const kept = { model: $("model").value, loras: this.#loras.map(({ lora, weight }) => ({ id: lora.id, weight })) };
    for (const name of PLAIN) if (!["prompt", "seed"].includes(name)) kept[name] = $(name).value;
    return Object.assign(kept, this.#enlarge.value(), this.#more.value(), { style: this.#shelf.style });
  }

  #onModel() {
    const model = this.model;
    if (!model) return;
    const { defaults } = model;
    $("sampler").replaceChildren(...model.samplers.map((name) => new Option(name, name)));
    for (const name of ["width", "height", "steps", "guidance_scale", "sampler"]) $(name).value = defaults[name];
    $("width").step = $("height").step = model.granularity;
    $("width").min = $("height").min = model.granularity;
    $("width").max = $("height").max = model.largest_side;
    $("size").replaceChildren(...sizesOf(model).map(([name, w, h]) => new Option(`${name}, ${w} × ${h}`, `${w}x${h}`)));
    $("size").append(new Option("Another…", ""));
    this.#shapes.fill(sizesOf(model));
    this.#resets.fill(defaults);
    this.#more.allow(model.takes);
    this.begin.allow(model.begins_from_pictures, model.takes_masks);
    this.references.allow(model.most_references);
    this.control.allow(model.controls);
    this.#enlarge.allow(model.begins_from_pictures);
    this.#loras = this.#loras.filter(({ lora }) => model.loras.some((one) => one.id === lora.id));
    this.#showLoras();
    this.#showSize();
    this.#onPicture();
    show($("examples"), model.built_in);
  }

  #showSize() {
    $("size").value = `${$("width").value}x${$("height").value}`;
    if ($("size").selectedIndex < 0) $("size").value = "";
    this.#showCustom();
  }

  #onSize() {
    if ($("size").value && $("size").value !== AS_PICTURE) [$("width").value, $("height").value] = $("size").value.split("x");
    this.#showCustom();
  }

  #showCustom() {
    for (const field of document.querySelectorAll(".custom")) show(field, !$("size").value);
    this.#shapes.show($("size").value, $("size").value !== AS_PICTURE);
    this.#resets.update();
  }

  /** One of the model's, or another. */
  #chooseSize(size) {
    [$("width").value, $("height").value] = size.split("x");
    this.#showSize();
    this.#keep();
  }

  /** The size follows the picture, for as long as there is one. */
  #onPicture() {
    const asPicture = [...$("size").options].find((one) => one.value === AS_PICTURE);
    const isThere = this.begin.isThere || this.references.areThere || this.control.isThere;
    if (isThere && !asPicture) $("size").prepend(new Option("As the picture", AS_PICTURE));
    if (isThere) $("size").value = AS_PICTURE;
    else asPicture?.remove();
    if (isThere || asPicture) this.#onSize();
    if (!isThere && asPicture) this.#showSize();
  }

  /** What was in the clipboard, or dropped: pictures for a model that is shown them, else the first to begin from. */
  #take(event, data) {
    const files = [...data.files].filter((one) => one.type.startsWith("image/"));
    if (files.length && $("controlling").contains(event.target)) {
      event.preventDefault();
      this.control.choose(files[0]);
      return;
    }
    if (files.length && $("liking").contains(event.target)) {
      event.preventDefault();
      this.like.choose(files[0]);
      return;
    }
    const isSaid = $("begin").contains(event.target) || $("showing").contains(event.target);
    const isToBegin = !this.references.isAllowed || $("begin").contains(event.target);
    if (!files.length || $("studio").hidden) return;
    event.preventDefault();
    const take = () => (isToBegin ? this.begin.choose(files[0]) : this.references.add(files));
    if (isSaid || files.length > 1) take();
    else this.onDropped(files[0], isToBegin && $("begin").hidden ? null : take);
  }

  #openCustomSize() {
    $("size").value = "";
    this.#onSize();
  }

  // LoRAs

  #addChosenLora() {
    const lora = this.model.loras.find((one) => one.id === $("lora").value);
    if (!lora) return;
    this.#loras.push({ lora, weight: lora.weight });
    this.#showLoras();
    this.#keep();
    $("lora-list").lastElementChild.querySelector("input[type=number]").select();
  }

  #removeLora(lora) {
    this.#loras = this.#loras.filter((one) => one.lora !== lora);
    this.#showLoras();
    this.#keep();
    $("lora").focus();
  }

  #showLoras() {
    const fitting = this.model?.loras ?? [];
    const words = $("lora-search").value.toLowerCase().split(/\s+/);
    const left = fitting.filter((lora) => !this.#loras.some((one) => one.lora.id === lora.id))
      .filter(({ name, trigger }) => words.every((word) => `${name} ${trigger}`.toLowerCase().includes(word)));
    $("lora-list").replaceChildren(...this.#loras.map((use) => this.#row(use)));
    $("lora").replaceChildren(...left.map((lora) => new Option(lora.name, lora.id)));
    show($("lora-more"), left.length > 0);
    show($("lora-none"), fitting.length === 0);
    show($("lora-search"), fitting.length > MANY_LORAS);
    this.#showPreview();
  }

  /** What the LoRA draws that would be added. */
  #showPreview() {
    const lora = this.model?.loras.find((one) => one.id === $("lora").value);
    show($("lora-preview"), false);
    if (!lora?.has_preview) return;
    pictureAt(`loras/${lora.id}/preview`).then((url) => {
      $("lora-preview").src = url;
      show($("lora-preview"), $("lora").value === lora.id);
    }, () => {});
  }

  #row(use) {
    const { lora } = use;
    const remove = make("button", { type: "button", className: "quiet", textContent: "Remove" });
    remove.setAttribute("aria-label", `Remove ${lora.name}`);
    remove.addEventListener("click", () => this.#removeLora(lora));
    const range = make("input", { type: "range", min: 0, max: 2, step: 0.05, value: use.weight });
    const exact = make("input", { type: "number", min: -10, max: 10, step: 0.05, value: use.weight });
    range.setAttribute("aria-label", `Weight of ${lora.name}`);
    exact.setAttribute("aria-label", `Weight of ${lora.name}, exactly`);
    range.addEventListener("input", () => (use.weight = Number((exact.value = range.value))));
    exact.addEventListener("input", () => (use.weight = Number((range.value = exact.value) && exact.value)));
    const row = make("li", {}, make("span", { className: "name", textContent: lora.name }), remove,
      make("div", { className: "weight" }, range, exact));
    for (const trigger of lora.trigger.split(",")) if (trigger.trim()) row.append(this.#triggerButton(trigger.trim()));
    return row;
  }

  #triggerButton(trigger) {
    const button = make("button", { type: "button", className: "trigger", textContent: `Add “${trigger}” to the prompt` });
    button.addEventListener("click", () => {
      const prompt = $("prompt").value.trim();
      if (!prompt.toLowerCase().includes(trigger.toLowerCase())) this.showPrompt(prompt ? `${prompt}, ${trigger}` : trigger);
      $("prompt").focus();
    });
    return button;
  }
}

/** What the daemon says of a field, by the name that it has here. */
function labelled({ message, field }, control) {
  const label = control?.labels?.[0]?.firstChild.textContent.trim().toLowerCase();
  return label && message.startsWith(`${field}: `) ? message.replace(`${field}:`, `${label}:`) : message;
}

function number(name, text) {
  const value = Number(text);
  const isWhole = name !== "guidance_scale";
  if (!text.trim() || !Number.isFinite(value) || (isWhole && !Number.isInteger(value)) || (name === "seed" && (value < 0 || value >= SEED_LIMIT))) {
    const kind = name === "seed" ? "a whole number from 0 to 2^53" : isWhole ? "a whole number" : "a number";
    throw { message: `${$(name).labels[0].textContent.trim()} must be ${kind}.`, hint: "", field: name };
  }
  return value;
}

/** The model's own size, then its own pixels in several shapes, as the daemon has rounded them. */
function sizesOf({ defaults, sizes }) {
  const listed = [["Default", defaults.width, defaults.height]];
  for (const { shape, width, height } of sizes) {
    if (!listed.some(([, w, h]) => w === width && h === height)) listed.push([SHAPES[shape], width, height]);
  }
  return listed;
}
