// Where a job's pictures appear: its progress while it runs, then the picture with what it was made from.

import { $, make, show, tellProblem } from "./dom.js";
import { pictureUrl } from "./pictures.js";

const TITLE = document.title;
const EXTENSIONS = { "image/png": "png", "image/jpeg": "jpg", "image/webp": "webp" };

export class Stage {
  #spec = null; // of the job on show
  #tiles = new Map(); // index -> {button, picture}
  #job = { steps: 1, count: 1, done: new Map() }; // that runs: index -> its steps, whatever is on show
  #shown = null; // {button, spec, image} of the picture whose facts are shown
  #phase = "";
  #begin; // knows the picture that was begun from
  #references; // and those that the model was shown
  #control; // and what a control model read

  constructor({ onCancel, onAgain, onBegin, onEnlarge, onView, begin, references, control }) {
    this.#begin = begin;
    this.#references = references;
    this.#control = control;
    $("compare").addEventListener("input", () => this.#compare());
    $("cancel").addEventListener("click", onCancel);
    $("again").addEventListener("click", () => onAgain(this.#shown.spec));
    $("draw-from").addEventListener("click", () => onBegin(this.#shown.image));
    $("enlarge").addEventListener("click", () => onEnlarge(this.#shown.image));
    $("view").addEventListener("click", () => onView(this.#shown.image));
    $("copy").addEventListener("click", () => this.#copy());
  }

  clear() {
    this.#tiles.clear();
    $("tiles").replaceChildren();
    tellProblem($("stage-error"), null);
    for (const id of ["tiles", "result"]) show($(id), false);
    this.#endProgress();
    show($("blank"), true);
  }

  /** A job as a snapshot has it. */
  begin(job) {
    this.clear();
    this.#spec = job.generate;
    this.#phase = "";
    const { width, height, count, steps } = job.generate;
    this.#job = { steps: steps || 1, count, done: new Map() };
    this.#frame(width, height, count);
    for (let index = 0; index < count; index++) this.#addTile(index);
    show($("blank"), false);
    show($("tiles"), true);
    show($("progress"), true);
    show($("cancel"), true);
    for (const image of job.images) this.image(image);
    this.queued(job.position, "");
    if (job.state === "RUNNING") this.say("Drawing…");
  }

  queued(position, why) {
    const ahead = position > 1 ? `${position} jobs ahead` : position === 1 ? "1 job ahead" : "next in line";
    this.say(`Waiting: ${[ahead, why].filter(Boolean).join(", ")}`);
    this.#meter(null);
  }

  /** How long it will take, about. */
  left(text) {
    $("left").textContent = text;
  }

  loading(model, done, total) {
    const share = total ? ` ${Math.floor((100 * done) / total)} %` : "";
    this.say(`Loading ${model}${share}`, `Loading ${model}`);
    this.#meter(total ? done / total : null);
  }

  step(index, step, of, preview) {
    this.#job.steps = Math.max(this.#job.steps, of); // what is enlarged takes more than are asked for
    this.#note(index, step);
    const tile = this.#tiles.get(index);
    if (!tile || tile.isDrawn) return;
    tile.button.classList.replace("waiting", "drawing");
    tile.button.style.setProperty("--done", step / of);
    if (preview) tile.picture.src = `data:image/jpeg;base64,${preview}`;
  }

  image(image) {
    this.made(image.index);
    this.#put(image);
  }

  /** A picture of the job that runs is done; it need not be on show. */
  made(index) {
    this.#note(index, this.#job.steps);
  }

  #note(index, step) {
    this.#job.done.set(index, step);
    this.#showSteps();
  }

  #put(image) {
    const tile = this.#tiles.get(image.index);
    if (!tile || tile.isDrawn) return;
    tile.isDrawn = true;
    const own = this.#spec.expanded?.[image.index]; // of wildcards
    const spec = { ...this.#spec, ...(own && { ...own, expanded: [], wildcards: false }), seed: image.seed };
    pictureUrl(image.id).then((url) => this.#hang(tile, url, spec, image), (problem) => this.fail(problem));
  }

  /** The job's end. */
  finish(job) {
    for (const image of job.images) this.image(image);
    const hadFocus = $("progress").contains(document.activeElement);
    this.#endProgress();
    for (const [index, tile] of this.#tiles) if (!tile.isDrawn) this.#dropTile(index);
    if (!this.#tiles.size) show($("tiles"), false);
    if (hadFocus) (job.images.length ? $("save") : $("generate")).focus();
    if (job.state === "SUCCEEDED") this.#announce(job.images.length > 1 ? `${job.images.length} pictures are done.` : "The picture is done.");
    else this.#tellEnd(job);
  }

  fail(problem) {
    this.#endProgress();
    tellProblem($("stage-error"), problem);
  }

  /** A picture of the past; `isBusy`: while a job runs, whose progress stays in sight. */
  present(spec, image, isBusy) {
    this.clear();
    show($("progress"), isBusy);
    this.#spec = spec;
    this.#frame(image.width, image.height, 1);
    this.#addTile(image.index);
    show($("blank"), false);
    show($("tiles"), true);
    this.#put(image);
    if (isBusy && this.#job.done.size) this.#showSteps();
  }

  /** What happens now, for eyes; `coarse` is what ears get, and only when it changes. */
  say(text, coarse = text) {
    $("doing").textContent = text;
    if (coarse !== this.#phase) this.#announce((this.#phase = coarse));
  }

  #announce(text) {
    $("said").textContent = text;
  }

  #showSteps() {
    const { steps, count, done } = this.#job;
    const made = [...done.values()];
    const share = made.reduce((sum, step) => sum + step, 0) / (steps * count);
    const drawn = made.filter((step) => step >= steps).length;
    const many = count > 1 ? `, ${drawn} of ${count} done` : "";
    this.say(`Step ${Math.max(...made)} of ${steps}${many}`, `Drawing, ${Math.floor(4 * share) * 25} %`);
    this.#meter(share);
  }

  #meter(share) {
    if (share === null) $("meter").removeAttribute("value");
    else $("meter").value = share;
    document.title = share === null ? TITLE : `${Math.floor(100 * share)} % ${TITLE}`;
  }

  #endProgress() {
    this.left("");
    show($("progress"), false);
    document.title = TITLE;
  }

  #frame(width, height, count) {
    const scale = 1.75; // pictures of 256 pixels are shown larger
    const side = Math.min(scale * width, (width * 576) / height, 640);
    $("tiles").classList.toggle("many", count > 1);
    $("tiles").style.setProperty("--ratio", width / height);
    $("tiles").style.setProperty("--side", count > 1 ? `${Math.min(side, 256)}px` : `${Math.max(160, side)}px`);
  }

  #addTile(index) {
    const picture = make("img", { alt: "" });
    show(picture, false);
    picture.addEventListener("load", () => show(picture, true));
    const button = make("button", { type: "button", className: "tile waiting", disabled: true }, picture);
    button.setAttribute("aria-label", `Picture ${index + 1}`);
    $("tiles").append(make("li", {}, button));
    this.#tiles.set(index, { button, picture });
  }

  #dropTile(index) {
    this.#tiles.get(index).button.parentElement.remove();
    this.#tiles.delete(index);
  }

  #hang({ button, picture }, url, spec, image) {
    if (!button.isConnected) return;
    picture.src = url;
    picture.alt = spec.prompt || "A picture, enlarged";
    button.className = "tile drawn";
    button.disabled = this.#tiles.size < 2;
    button.setAttribute("aria-label", `Picture ${image.index + 1}, seed ${image.seed}: ${spec.prompt.slice(0, 200)}`);
    button.addEventListener("click", () => this.#showFacts(button, url, spec, image));
    if (!this.#shown?.button.isConnected) this.#showFacts(button, url, spec, image);
  }

  #showFacts(button, url, spec, image) {
    this.#shown?.button.removeAttribute("aria-current");
    if (this.#tiles.size > 1) button.setAttribute("aria-current", "true");
    this.#shown = { button, spec, image };
    $("caption").textContent = spec.prompt || (isEnlargedOnly(spec) ? `Enlarged ${spec.upscale.scale} times` : "");
    show($("again"), !isEnlargedOnly(spec));
    this.#showBefore(button, spec);
    const loras = spec.loras.map(({ name, weight }) => `${name}:${weight}`).join(", ");
    const facts = {
      Seed: image.seed,
      Model: spec.model,
      LoRAs: loras,
      Size: `${image.width} × ${image.height}`,
      Steps: spec.steps || undefined,
      Guidance: isEnlargedOnly(spec) ? undefined : spec.guidance_scale,
      Sampler: spec.sampler,
      Strength: isEnlargedOnly(spec) ? undefined : spec.start?.strength,
      Enlarged: spec.upscale && !isEnlargedOnly(spec) ? `${spec.upscale.scale} times, by ${spec.upscale.model}` : undefined,
      Shown: spec.references.length || undefined,
      "True guidance": spec.true_cfg_scale > 1 ? spec.true_cfg_scale : undefined,
      Refiner: spec.refiner ? `${spec.refiner.model}, after ${spec.refiner.switch}` : undefined,
      Control: spec.controls.map(({ kind, model, scale }) => `${kind} by ${model}, ${scale}`).join(", "),
      "Left out": spec.negative_prompt,
    };
    const known = Object.entries(facts).filter(([, value]) => value !== "" && value !== undefined);
    $("facts").replaceChildren(...known.map(([name, value]) =>
      make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: value }))));
    this.#showCommand(spec).catch((problem) => this.fail(problem));
    $("save").href = url;
    $("save").download = `craft-${image.seed}.${EXTENSIONS[image.media_type] ?? "png"}`;
    show($("result"), true);
  }

  async #showCommand(spec) {
    $("command").replaceChildren();
    const { commandOf } = await import("./command.js"); // not before there is a picture
    if (this.#shown.spec !== spec) return;
    $("command").replaceChildren(...wrapped(commandOf(spec, this.#begin.urlOf(spec.start) && this.#begin.name,
      this.#references.isOf(spec.references) ? this.#references.names : [],
      this.#control.isOf(spec.controls) ? this.#control.name : "")));
  }

  /** The picture that was begun from, over the one that was made of it, as far as the slider says. */
  #showBefore(button, spec) {
    document.querySelector(".before")?.remove();
    const url = this.#begin.urlOf(spec.start);
    show($("comparing"), Boolean(url));
    $("compare").value = 0;
    if (!url) return;
    button.append(make("img", { src: url, alt: "", className: "before" }));
    this.#compare();
  }

  #compare() {
    document.querySelector(".before")?.style.setProperty("--before", `${$("compare").value}%`);
  }

  #tellEnd(job) {
    if (job.state === "CANCELLED" && job.error?.reason === "CANCELLED" && !job.images.length) {
      this.clear();
      $("said").textContent = "Cancelled.";
    } else if (job.error && job.state !== "CANCELLED") {
      tellProblem($("stage-error"), job.error);
    } else {
      this.#announce("Cancelled.");
    }
  }

  async #copy() {
    const { copy } = await import("./command.js");
    const isDone = await copy($("command").textContent);
    $("copy").textContent = isDone ? "Copied" : "Select it";
    this.#announce(isDone ? "Copied." : "It could not be copied.");
    setTimeout(() => ($("copy").textContent = "Copy"), 2000);
  }
}

/** Nothing was drawn: a picture was enlarged. */
function isEnlargedOnly(spec) {
  return spec.steps === 0 && Boolean(spec.upscale);
}

/** A line whose short words are not broken, as a browser would after a hyphen. */
function wrapped(line) {
  return line.split(/( +)/).map((word) =>
    word.length < 24 && word.trim() ? make("span", { className: "word", textContent: word }) : word);
}
