// A picture as large as the window: zoomed, moved, the next and the one before, two compared, and what its owner does with it.

import { copy } from "./command.js";
import { $, show } from "./dom.js";
import { pictureUrl } from "./pictures.js";

const MOST = 8; // times
const PAN = 80; // pixels, of an arrow key

export class Viewer {
  #gallery;
  #onProblem;
  #image = null; // as GET /images has it
  #zoom = 1;
  #at = { x: 0, y: 0 };

  constructor({ gallery, onProblem }) {
    this.#gallery = gallery;
    this.#onProblem = onProblem;
    const buttons = {
      previous: () => this.#go(-1), next: () => this.#go(1), larger: () => this.#zoomTo(this.#zoom * 1.5), smaller: () => this.#zoomTo(this.#zoom / 1.5),
      favourite: () => this.#mark({ favourite: !this.#image.favourite }), public: () => this.#mark({ public: !this.#image.public }),
      link: () => this.#copyLink(), delete: () => this.#delete(), close: () => $("viewer").close(),
    };
    for (const [name, act] of Object.entries(buttons)) {
      $(`viewer-${name}`).addEventListener("click", () => Promise.resolve(act()).catch(onProblem));
    }
    $("viewer").addEventListener("keydown", (event) => this.#onKey(event));
    $("viewer-pane").addEventListener("wheel", (event) => {
      event.preventDefault();
      this.#zoomTo(this.#zoom * (event.deltaY < 0 ? 1.2 : 1 / 1.2));
    }, { passive: false });
    $("viewer-pane").addEventListener("dblclick", () => this.#zoomTo(this.#zoom > 1 ? 1 : 2));
    $("viewer-pane").addEventListener("pointermove", (event) => event.buttons & 1 && this.#move(event.movementX, event.movementY));
    $("viewer-cut").addEventListener("input", () => this.#cut());
  }

  /** By an image as GET /images has it. */
  async open(image) {
    show($("viewer-comparing"), false);
    show($("viewer-other"), false);
    show($("viewer-doing"), true);
    await this.#put(image);
    if (!$("viewer").open) $("viewer").showModal();
    $("viewer-pane").focus();
  }

  /** Two of the gallery's, one over the other, parted by a slider. */
  async compare(one, other) {
    await this.open(one);
    $("viewer-other").src = await pictureUrl(other.id);
    $("viewer-other").alt = other.prompt;
    $("viewer-cut").value = 50;
    this.#cut();
    show($("viewer-other"), true);
    show($("viewer-comparing"), true);
    show($("viewer-doing"), false);
    $("viewer-cut").focus();
  }

  async #put(image) {
    const url = await pictureUrl(image.id);
    this.#image = image;
    $("viewer-picture").src = $("viewer-save").href = url;
    $("viewer-picture").alt = image.prompt || "A picture";
    $("viewer-save").download = `craft-${image.seed}.${image.media_type.split("/")[1].replace("jpeg", "jpg")}`;
    $("viewer-text").textContent = `${image.prompt.slice(0, 300)} · ${image.width} × ${image.height}, seed ${image.seed}`;
    $("viewer-said").textContent = "";
    this.#zoomTo(1);
    this.#showMarks();
  }

  async #go(by) {
    const beside = this.#gallery.find(this.#gallery.beside(this.#image.id, by));
    if (beside) await this.#put(beside);
  }

  #showMarks() {
    const { favourite, public: isPublic, id } = this.#image;
    $("viewer-favourite").setAttribute("aria-pressed", favourite);
    $("viewer-public").setAttribute("aria-pressed", isPublic);
    $("viewer-delete").textContent = "Delete";
    show($("viewer-link"), isPublic);
    $("viewer-previous").disabled = !this.#gallery.beside(id, -1);
    $("viewer-next").disabled = !this.#gallery.beside(id, 1);
  }

  async #mark(marks) {
    this.#image = await this.#gallery.mark(this.#image.id, marks);
    this.#showMarks();
  }

  async #copyLink() {
    const isDone = await copy(new URL(`image/${this.#image.id}`, location.href).href);
    $("viewer-said").textContent = isDone ? "The link is copied." : "It could not be copied.";
  }

  /** The second press does it; the next picture takes its place. */
  async #delete() {
    if ($("viewer-delete").textContent === "Delete") return ($("viewer-delete").textContent = "Really delete?");
    const { id } = this.#image;
    const next = this.#gallery.find(this.#gallery.beside(id, 1)) ?? this.#gallery.find(this.#gallery.beside(id, -1));
    await this.#gallery.delete(id);
    if (next) await this.#put(next);
    else $("viewer").close();
  }

  #onKey(event) {
    if (event.target === $("viewer-cut") || event.ctrlKey || event.metaKey || event.altKey) return;
    const isZoomed = this.#zoom > 1;
    const acts = {
      ArrowLeft: () => (isZoomed ? this.#move(PAN, 0) : this.#go(-1)), ArrowRight: () => (isZoomed ? this.#move(-PAN, 0) : this.#go(1)),
      ArrowUp: () => this.#move(0, PAN), ArrowDown: () => this.#move(0, -PAN),
      "+": () => this.#zoomTo(this.#zoom * 1.5), "-": () => this.#zoomTo(this.#zoom / 1.5), 0: () => this.#zoomTo(1),
      f: () => this.#mark({ favourite: !this.#image.favourite }), Delete: () => this.#delete(),
    };
    const act = acts[event.key];
    if (!act || !$("viewer-comparing").hidden) return;
    event.preventDefault();
    Promise.resolve(act()).catch(this.#onProblem);
  }

  #zoomTo(zoom) {
    this.#zoom = Math.min(MOST, Math.max(1, zoom));
    if (this.#zoom < 1.05) [this.#zoom, this.#at] = [1, { x: 0, y: 0 }];
    this.#place();
  }

  #move(x, y) {
    if (this.#zoom === 1) return;
    const { clientWidth: width, clientHeight: height } = $("viewer-pane");
    const [mostX, mostY] = [(width * (this.#zoom - 1)) / 2, (height * (this.#zoom - 1)) / 2];
    this.#at = { x: Math.max(-mostX, Math.min(mostX, this.#at.x + x)), y: Math.max(-mostY, Math.min(mostY, this.#at.y + y)) };
    this.#place();
  }

  #place() {
    for (const id of ["viewer-picture", "viewer-other"]) $(id).style.transform = `translate(${this.#at.x}px, ${this.#at.y}px) scale(${this.#zoom})`;
  }

  #cut() {
    $("viewer-other").style.setProperty("--cut", `${$("viewer-cut").value}%`);
  }
}
