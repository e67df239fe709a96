// This key's pictures, newest first: searched, chosen, and only those in sight in the document, however many there are.

import { call, get } from "./api.js";
import { $, make, show } from "./dom.js";
import { pictureUrl } from "./pictures.js";

const PAGE = 100;
const SIDE = 320;
const LEAST = 100; // pixels, of a tile's side
const GAP = 12;
const BEYOND = 600; // pixels above and below the screen that are kept ready
const AT_ONCE = 3;
const CALM_MS = 60; // what is scrolled past faster is not fetched
const SEARCHED = { prompt: "search-prompt", model: "search-model", lora: "search-lora", since: "search-since", until: "search-until" };

export class Gallery {
  #onPick;
  #onView;
  #onProblem;
  #images = []; // as GET /images has them
  #known = new Set(); // their ids
  #items = new Map(); // id -> the <li> of one in sight
  #chosen = new Set(); // ids, while several are selected
  #current = 0; // the place that Tab comes to
  #token = null; // of the next page; "": there is none
  #round = 0; // a search that was asked for later makes answers of earlier ones void
  #isLoading = false;
  #typing = 0;
  #wanted = []; // small pictures that are to be fetched
  #fetching = 0;

  /** `onPick` and `onView` get an id, `onProblem` an error. */
  constructor({ onPick, onView, onCompare, onProblem }) {
    [this.#onPick, this.#onView, this.#onProblem] = [onPick, onView, onProblem];
    addEventListener("scroll", () => this.#show(), { passive: true });
    new ResizeObserver(() => this.#show()).observe($("gallery"));
    $("thumbs").addEventListener("keydown", (event) => this.#onKey(event));
    $("search").addEventListener("submit", (event) => event.preventDefault());
    $("search").addEventListener("input", () => {
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => this.load().catch(onProblem), 250);
    });
    $("select").addEventListener("click", () => this.#select(!this.#isSelecting));
    $("selected-download").addEventListener("click", () => this.#download());
    $("selected-favourite").addEventListener("click", () => this.#each((id) => this.mark(id, { favourite: true })));
    $("selected-delete").addEventListener("click", () => this.#deleteChosen());
    $("selected-compare").addEventListener("click", () => onCompare(...this.#chosen));
  }

  async load() {
    this.clear();
    await this.#addPage();
  }

  clear() {
    this.#round++;
    [this.#images, this.#token, this.#isLoading, this.#current] = [[], null, false, 0];
    this.#known.clear();
    this.#select(false);
    this.#show();
  }

  get #isSelecting() {
    return $("select").getAttribute("aria-pressed") === "true";
  }

  /** In its place, newest first; one that is there already stays. Not while others are searched for. */
  add(image) {
    if (!this.#query()) this.#add(image);
  }

  find(id) {
    return this.#images.find((one) => one.id === id);
  }

  /** The id of the one before or after. */
  beside(id, by) {
    return this.#images[this.#images.findIndex((one) => one.id === id) + by]?.id;
  }

  async mark(id, marks) {
    const image = await (await call(`images/${id}`, { method: "PATCH", body: marks })).json();
    const place = this.#images.findIndex((one) => one.id === id);
    if (place >= 0) this.#images[place] = image;
    this.#items.get(id)?.querySelector("button").classList.toggle("favourite", image.favourite);
    return image;
  }

  async delete(id) {
    await call(`images/${id}`, { method: "DELETE" });
    this.#forget(id);
  }

  #add(image) {
    if (this.#known.has(image.id)) return;
    this.#known.add(image.id);
    const older = this.#images.findIndex((one) => one.create_time < image.create_time);
    this.#images.splice(older < 0 ? this.#images.length : older, 0, image);
    this.#show();
  }

  #forget(id) {
    this.#images = this.#images.filter((one) => one.id !== id);
    this.#known.delete(id);
    this.#chosen.delete(id);
    this.#show();
    this.#showChosen();
  }

  #query() {
    const asked = new URLSearchParams();
    for (const [name, id] of Object.entries(SEARCHED)) if ($(id).value.trim()) asked.set(name, $(id).value.trim());
    for (const name of ["since", "until"]) if (asked.has(name)) asked.set(name, dayOf(asked.get(name), name === "until"));
    if ($("search-favourite").checked) asked.set("favourite", true);
    return asked.toString();
  }

  async #addPage() {
    const round = this.#round;
    this.#isLoading = true;
    try {
      const page = await get(`images?page_size=${PAGE}&page_token=${this.#token ?? ""}&${this.#query()}`);
      if (round !== this.#round) return;
      for (const image of page.images) if (!this.#known.has(image.id)) this.#known.add(image.id) && this.#images.push(image);
      this.#token = page.next_page_token;
    } finally {
      if (round === this.#round) this.#isLoading = false;
    }
    this.#show();
  }

  // What is in sight

  #show() {
    const list = $("thumbs");
    const isEmpty = !this.#images.length;
    show($("gallery-empty"), isEmpty);
    $("gallery-empty").textContent = this.#query() ? "None is like that." : "None yet.";
    const width = list.clientWidth || LEAST;
    const columns = Math.max(1, Math.floor((width + GAP) / (LEAST + GAP)));
    const pitch = (width + GAP) / columns;
    const rows = Math.ceil(this.#images.length / columns);
    list.style.height = isEmpty ? "0" : `${Math.ceil(rows * pitch - GAP)}px`;
    const top = -list.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor((top - BEYOND) / pitch)) * columns;
    const beyond = Math.max(first + columns, Math.ceil((top + innerHeight + BEYOND) / pitch) * columns); // one row always
    this.#hang(first, Math.max(0, Math.min(beyond, this.#images.length)), columns, pitch);
    if (this.#token && !this.#isLoading && beyond + columns * 8 > this.#images.length) this.#addPage().catch(this.#onProblem);
  }

  #hang(first, beyond, columns, pitch) {
    const seen = this.#images.slice(first, beyond);
    const ids = new Set(seen.map(({ id }) => id));
    for (const [id, item] of this.#items) {
      if (ids.has(id)) continue;
      item.remove();
      this.#items.delete(id);
    }
    seen.forEach((image, index) => {
      const item = this.#items.get(image.id) ?? this.#thumb(image);
      const place = first + index;
      item.style.transform = `translate(${(place % columns) * pitch}px, ${Math.floor(place / columns) * pitch}px)`;
      item.style.width = `${pitch - GAP}px`;
      item.setAttribute("aria-posinset", place + 1);
      item.setAttribute("aria-setsize", this.#token ? -1 : this.#images.length);
      if ($("thumbs").children[index] !== item) $("thumbs").insertBefore(item, $("thumbs").children[index] ?? null);
    });
    if (this.#current >= this.#images.length) this.#current = 0;
    const isThere = this.#items.has(this.#images[this.#current]?.id);
    for (const [id, item] of this.#items) item.firstChild.tabIndex = id === (isThere ? this.#images[this.#current].id : seen[0].id) ? 0 : -1;
  }

  #thumb(image) {
    const picture = make("img", { alt: "" });
    show(picture, false);
    picture.addEventListener("load", () => show(picture, true));
    const button = make("button", { type: "button", className: "tile" }, picture);
    button.classList.toggle("favourite", image.favourite);
    button.setAttribute("aria-label", `${image.prompt.slice(0, 200)}, seed ${image.seed}`);
    button.title = image.prompt.slice(0, 500);
    if (this.#isSelecting) button.setAttribute("aria-pressed", this.#chosen.has(image.id));
    button.addEventListener("click", (event) => this.#onClick(image.id, event.shiftKey));
    button.addEventListener("dblclick", () => this.#isSelecting || this.#onView(image.id));
    const item = make("li", {}, button);
    this.#items.set(image.id, item);
    setTimeout(() => {
      this.#wanted.push({ id: image.id, picture });
      this.#fetch();
    }, CALM_MS);
    return item;
  }

  /** A few at once, so that the lists do not wait for them; what came into sight last goes first. */
  #fetch() {
    while (this.#fetching < AT_ONCE && this.#wanted.length) {
      const { id, picture } = this.#wanted.pop();
      if (!picture.isConnected) continue;
      this.#fetching++;
      pictureUrl(id, SIDE).then(
        (url) => (picture.src = url),
        (error) => error.status === 404 && this.#forget(id), // deleted meanwhile
      ).finally(() => {
        this.#fetching--;
        this.#fetch();
      });
    }
  }

  /** `isRange`: all from the one before to this one are chosen. */
  #onClick(id, isRange) {
    const from = this.#current;
    this.#current = this.#images.findIndex((one) => one.id === id);
    if (!this.#isSelecting) return this.#onPick(id);
    const range = this.#images.slice(Math.min(from, this.#current), Math.max(from, this.#current) + 1);
    if (isRange) for (const one of range) this.#chosen.add(one.id);
    else if (!this.#chosen.delete(id)) this.#chosen.add(id);
    for (const [one, item] of this.#items) item.firstChild.setAttribute("aria-pressed", this.#chosen.has(one));
    this.#showChosen();
  }

  /** Arrow keys go from picture to picture, Home and End to the first and the last that is known; Escape ends selecting. */
  #onKey(event) {
    if (event.key === "Escape" && this.#isSelecting) return this.#select(false);
    const columns = Math.max(1, Math.floor(($("thumbs").clientWidth + GAP) / (LEAST + GAP)));
    const last = this.#images.length - 1;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -last, End: last }[event.key];
    if (!by || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const from = this.#images.findIndex((one) => this.#items.get(one.id)?.contains(document.activeElement));
    this.#current = Math.min(last, Math.max(0, from + by));
    const pitch = ($("thumbs").clientWidth + GAP) / columns;
    const top = $("thumbs").getBoundingClientRect().top + Math.floor(this.#current / columns) * pitch;
    if (top < 0 || top + pitch > innerHeight) scrollBy(0, top - innerHeight / 2);
    this.#show();
    this.#items.get(this.#images[this.#current].id)?.firstChild.focus({ preventScroll: true });
  }

  // Several

  #select(isOn) {
    this.#chosen.clear();
    $("select").setAttribute("aria-pressed", isOn);
    for (const item of this.#items.values()) {
      if (isOn) item.firstChild.setAttribute("aria-pressed", false);
      else item.firstChild.removeAttribute("aria-pressed");
    }
    this.#showChosen();
  }

  #showChosen() {
    const count = this.#chosen.size;
    show($("selection"), this.#isSelecting);
    $("selected-count").textContent = count === 1 ? "1 is selected" : `${count} are selected`;
    $("selected-delete").textContent = "Delete";
    for (const name of ["download", "favourite", "delete"]) $(`selected-${name}`).disabled = !count;
    $("selected-compare").disabled = count !== 2;
  }

  async #each(act) {
    try {
      for (const id of [...this.#chosen]) await act(id);
    } catch (error) {
      this.#onProblem(error);
    }
    this.#showChosen();
  }

  /** The second press does it. */
  #deleteChosen() {
    const asked = `Really delete ${this.#chosen.size}?`;
    if ($("selected-delete").textContent !== asked) return ($("selected-delete").textContent = asked);
    return this.#each((id) => this.delete(id));
  }

  async #download() {
    try {
      const response = await call("images/zip", { method: "POST", body: { ids: [...this.#chosen] } });
      const url = URL.createObjectURL(await response.blob());
      make("a", { href: url, download: "craft.zip" }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (error) {
      this.#onProblem(error);
    }
  }
}

/** The moment at which a day begins here, or ends. */
function dayOf(text, isEnd) {
  const [year, month, day] = text.split("-").map(Number);
  return new Date(year, month - 1, day + (isEnd ? 1 : 0)).toISOString();
}
