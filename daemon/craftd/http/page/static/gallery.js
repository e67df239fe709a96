// The last pictures of this key.

import { get } from "./api.js";
import { $, make, show } from "./dom.js";
import { pictureUrl } from "./pictures.js";

const PAGE = 24;
const SIDE = 320;

export class Gallery {
  #onPick;
  #token = "";
  #seen = new IntersectionObserver((entries) => this.#onSeen(entries), { rootMargin: "200px" });

  /** `onPick` gets an image as GET /images/{id}/details has it. */
  constructor(onPick) {
    this.#onPick = onPick;
    $("older").addEventListener("click", () => this.#addPage());
  }

  async load() {
    this.clear();
    await this.#addPage();
  }

  clear() {
    this.#token = "";
    this.#seen.disconnect();
    $("thumbs").replaceChildren();
    show($("older"), false);
    show($("gallery-empty"), true);
  }

  /** In its place, newest first; one that is there already stays. */
  add(image) {
    const thumbs = [...$("thumbs").children];
    if (thumbs.some((one) => one.dataset.id === image.id)) return;
    const older = thumbs.find((one) => one.dataset.time < image.create_time);
    $("thumbs").insertBefore(this.#thumb(image), older ?? null);
    show($("gallery-empty"), false);
  }

  async #addPage() {
    const page = await get(`images?page_size=${PAGE}&page_token=${this.#token}`);
    for (const image of page.images) this.add(image);
    this.#token = page.next_page_token;
    show($("older"), Boolean(this.#token));
  }

  #thumb(image) {
    const picture = make("img", { alt: "" });
    show(picture, false);
    picture.addEventListener("load", () => show(picture, true));
    const button = make("button", { type: "button", className: "tile" }, picture);
    button.setAttribute("aria-label", `${image.prompt.slice(0, 200)}, seed ${image.seed}`);
    button.title = image.prompt.slice(0, 500);
    button.addEventListener("click", async () => this.#onPick(await get(`images/${image.id}/details`)));
    const item = make("li", {}, button);
    item.dataset.id = image.id;
    item.dataset.time = image.create_time;
    this.#seen.observe(item);
    return item;
  }

  #onSeen(entries) {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      this.#seen.unobserve(target);
      pictureUrl(target.dataset.id, SIDE).then(
        (url) => (target.querySelector("img").src = url),
        () => target.remove(), // deleted meanwhile
      );
    }
  }
}
