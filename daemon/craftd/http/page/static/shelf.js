// What is used again, kept in this browser: earlier prompts, styles (words around a prompt) and presets (all settings).

import { $, make, show } from "./dom.js";
import { keep, recall } from "./memory.js";

const MOST_PROMPTS = 50;
const LONGEST = 4_000; // characters of one that is kept
const PLACE = "{prompt}";
const BUILT_IN = {
  Photograph: { prompt: "photograph of {prompt}, natural light, sharp focus", negative_prompt: "drawing, painting, blurry" },
  Watercolour: { prompt: "{prompt}, watercolour painting, soft edges, paper texture", negative_prompt: "photograph" },
  "Line drawing": { prompt: "line drawing of {prompt}, black ink on white", negative_prompt: "colour, shading" },
};

export class Shelf {
  #settings;

  /** `settings()`: of the form, without its prompt and seed; `onPrompt`, `onPreset` get what was chosen. */
  constructor({ settings, onPrompt, onPreset }) {
    this.#settings = settings;
    $("history").addEventListener("change", () => {
      if ($("history").value) onPrompt(recall("history")[Number($("history").value)]);
      $("history").value = "";
    });
    $("preset").addEventListener("change", () => {
      const preset = recall("presets")?.[$("preset").value];
      if (preset) onPreset(preset);
      $("preset").value = ""; // the same one may be chosen again
    });
    $("shelf-open").addEventListener("click", () => this.#open());
    $("shelf-style").addEventListener("click", () => this.#save("styles", { prompt: $("prompt").value, negative_prompt: $("negative_prompt").value }));
    $("shelf-preset").addEventListener("click", () => this.#save("presets", this.#settings()));
    $("shelf-form").addEventListener("submit", (event) => {
      event.preventDefault();
      $("shelf-said").textContent = "As a style, or as a preset?";
      $("shelf-style").focus();
    });
    $("shelf-close").addEventListener("click", () => $("shelf").close());
    this.show();
  }

  show() {
    const chosen = $("style").value;
    const prompts = recall("history") ?? [];
    $("history").replaceChildren(new Option("Earlier prompts", ""), ...prompts.map((text, place) => new Option(text.slice(0, 120), place)));
    $("history").disabled = !prompts.length;
    $("style").replaceChildren(new Option("No style", ""), ...Object.keys(this.#styles).map((name) => new Option(name, name)));
    this.style = chosen;
    $("preset").replaceChildren(new Option("Presets", ""), ...Object.keys(recall("presets") ?? {}).map((name) => new Option(name, name)));
    $("preset").disabled = $("preset").options.length < 2;
  }

  get style() {
    return $("style").value;
  }

  set style(name) {
    $("style").value = name in this.#styles ? name : "";
  }

  /** A prompt that was drawn. */
  note(prompt) {
    const text = prompt.slice(0, LONGEST);
    if (!text.trim()) return;
    keep("history", [text, ...(recall("history") ?? []).filter((one) => one !== text)].slice(0, MOST_PROMPTS));
    this.show();
  }

  /** The prompts with the chosen style's words around them. */
  styled({ prompt, negative_prompt: negative }) {
    const style = this.#styles[this.style];
    if (!style) return {};
    const whole = style.prompt.includes(PLACE) ? style.prompt.replaceAll(PLACE, () => prompt) : [prompt, style.prompt].filter(Boolean).join(", ");
    return { prompt: whole, negative_prompt: [negative, style.negative_prompt].filter(Boolean).join(", ") };
  }

  get #styles() {
    return { ...BUILT_IN, ...recall("styles") };
  }

  #open() {
    $("shelf-name").value = "";
    $("shelf-said").textContent = "";
    this.#list();
    $("shelf").showModal();
  }

  #save(kind, value) {
    const name = $("shelf-name").value.trim().slice(0, 60);
    if (!name) {
      $("shelf-said").textContent = "Give it a name first.";
      return $("shelf-name").focus();
    }
    keep(kind, { ...recall(kind), [name]: value });
    if (kind === "styles") [$("shelf-said").textContent] = [`The style ${name} is kept.`];
    else $("shelf-said").textContent = `The preset ${name} is kept.`;
    this.show();
    this.#list();
  }

  #list() {
    const rows = [["styles", "Style"], ["presets", "Preset"]].flatMap(([kind, word]) => Object.keys(recall(kind) ?? {}).map((name) => this.#row(kind, word, name)));
    $("shelf-list").replaceChildren(...rows);
    show($("shelf-list"), rows.length > 0);
  }

  #row(kind, word, name) {
    const remove = make("button", { type: "button", className: "quiet", textContent: "Delete" });
    remove.setAttribute("aria-label", `Delete the ${word.toLowerCase()} ${name}`);
    remove.addEventListener("click", () => {
      const { [name]: _, ...rest } = recall(kind);
      keep(kind, rest);
      this.show();
      this.#list();
      $("shelf-name").focus();
    });
    return make("li", { className: "row" }, make("span", { textContent: `${word} ${name}` }), remove);
  }
}
