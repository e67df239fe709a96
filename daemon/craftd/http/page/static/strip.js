// What waits, runs and is done: a strip of this key's jobs, each with its preview, its time left and a way to end it.

import { call, get } from "./api.js";
import { $, make, show } from "./dom.js";
import { pictureUrl } from "./pictures.js";
import { watch } from "./stream.js";

const MOST_WATCHED = 32; // by one event stream
const MOST_DONE = 6;
const LOOK_EVERY_MS = 5_000; // at the queue, while something is in it
const SIDE = 160;

export class Strip {
  #jobs = new Map(); // id -> {job, item, ...}, in the order of their arrival
  #watching = new AbortController();
  #looking = 0;
  #onEvent;
  #onShow;
  #onProblem;

  /** `onEvent` gets {name, data}, data.job saying whose; `onShow` the id of the job that is to be looked at. */
  constructor({ onEvent, onShow, onProblem }) {
    this.#onEvent = onEvent;
    this.#onShow = onShow;
    this.#onProblem = onProblem;
    document.addEventListener("visibilitychange", () => document.hidden || this.#look());
    $("strip-tidy").addEventListener("click", () => this.#tidy(0));
  }

  /** What is unfinished, from before the page was opened or from elsewhere. */
  async load() {
    const queue = await get("queue");
    for (const { job } of queue.jobs.toSorted((one, other) => one.job.create_time.localeCompare(other.job.create_time))) this.#put(job);
    this.#take(queue);
    this.#watch();
  }

  clear() {
    this.#watching.abort();
    clearTimeout(this.#looking);
    this.#jobs.clear();
    $("strip-list").replaceChildren();
    $("allowance").textContent = "";
    this.#showCount();
  }

  /** A job that was just made. */
  add(job) {
    this.#put(job);
    this.#watch();
    this.#look();
  }

  /** {job, step, of, index, preview}, as far as is known. */
  find(id) {
    return this.#jobs.get(id);
  }

  isUnfinished(id) {
    return this.#jobs.has(id) && !this.#jobs.get(id).isOver;
  }

  async cancel(id) {
    try {
      await call(`jobs/${id}`, { method: "DELETE" });
    } catch (error) {
      if (error.code !== "JOB_FINISHED") this.#onProblem(error);
    }
  }

  async #watch() {
    this.#watching.abort();
    const { signal } = (this.#watching = new AbortController());
    const ids = this.#unfinished().map(({ job }) => job.id).slice(0, MOST_WATCHED);
    if (!ids.length) return;
    try {
      for await (const event of watch(ids, signal)) if (!signal.aborted) this.#on(event);
    } catch (error) {
      this.#onProblem(error);
    }
    if (!signal.aborted && this.#unfinished().length) this.#watch(); // those that found no place in the stream
  }

  #unfinished() {
    return [...this.#jobs.values()].filter((one) => !one.isOver);
  }

  #on(event) {
    const { name, data } = event;
    const one = this.#jobs.get(data.job);
    if (name === "lost") for (const each of this.#jobs.values()) each.isSeen = false;
    if (!one) return this.#onEvent(event);
    if (name === "problem") return this.#drop(one);
    const isMissed = name === "snapshot" && one.isSeen; // only the stream was another: what came meanwhile is told
    if (name === "snapshot" || name === "finished") one.job = data;
    one.isSeen = true;
    this.#note(one, name, data);
    if (name === "step") this.#onEvent({ name: "outlook", data: { job: data.job, left: left(one.leftS) } });
    if (!isMissed) return this.#onEvent(event);
    for (const image of data.images) this.#onEvent({ name: "image", data: image });
  }

  #note(one, name, data) {
    switch (name) {
      case "snapshot":
      case "queued": [one.position, one.isWaiting] = [data.position, name === "queued" || data.state === "QUEUED"]; break;
      case "loading": one.loading = data.model; break;
      case "image": one.images.set(data.index, data); break;
      case "step": this.#step(one, data); break;
      case "finished": return this.#end(one);
    }
    if (["started", "step", "image"].includes(name)) one.isWaiting = false;
    this.#show(one);
  }

  #step(one, { index, step, of, preview }) {
    Object.assign(one, { index, step, of, loading: "" });
    if (preview) one.preview = one.picture.src = `data:image/jpeg;base64,${preview}`;
    one.steps.set(index, step / of);
    const share = [...one.steps.values()].reduce((sum, part) => sum + part, 0) / one.job.generate.count;
    one.first ??= { share, at: performance.now() };
    one.share = share;
    const rate = (share - one.first.share) / (performance.now() - one.first.at);
    one.leftS = rate > 0 ? (1 - share) / rate / 1000 : one.drawS;
  }

  #end(one) {
    if (one.job.state === "CANCELLED" && !one.job.images.length) this.#drop(one);
    else {
      one.isOver = true;
      const [first] = one.job.images;
      if (first) pictureUrl(first.id, SIDE).then((url) => (one.picture.src = url), () => {});
      this.#show(one);
      this.#tidy(MOST_DONE);
    }
    this.#look();
  }

  /** Only so many of those that are done stay. */
  #tidy(most) {
    const done = [...this.#jobs.values()].filter((one) => one.isOver);
    for (const one of done.slice(0, Math.max(0, done.length - most))) this.#drop(one);
  }

  #drop(one) {
    const hadFocus = one.item.contains(document.activeElement);
    one.item.remove();
    this.#jobs.delete(one.job.id);
    this.#showCount();
    if (hadFocus) ($("strip-list").querySelector("button") ?? $("generate")).focus();
  }

  #put(job) {
    if (this.#jobs.has(job.id) || !job.generate) return;
    const text = (job.generate.prompt || "a picture").slice(0, 200);
    const picture = make("img", { alt: "" });
    const see = make("button", { type: "button", className: "tile" }, picture);
    const end = make("button", { type: "button", className: "quiet", textContent: "✕" });
    const said = make("p", { className: "soft" });
    const meter = make("progress", {});
    meter.setAttribute("aria-hidden", "true"); // the text says it
    see.setAttribute("aria-label", `Show: ${text}`);
    const item = make("li", {}, see, make("div", {}, make("p", { className: "name", textContent: text }), said, meter), end);
    const one = { job, item, picture, said, meter, end, text, steps: new Map(), images: new Map(), position: job.position, isWaiting: job.state === "QUEUED" };
    show(picture, false);
    picture.addEventListener("load", () => show(picture, true));
    see.addEventListener("click", () => this.#onShow(job.id));
    end.addEventListener("click", () => (one.isOver ? this.#drop(one) : this.cancel(job.id)));
    this.#jobs.set(job.id, one);
    $("strip-list").append(item);
    this.#show(one);
  }

  #show(one) {
    one.said.textContent = this.#saying(one);
    one.end.setAttribute("aria-label", `${one.isOver ? "Take off" : "Stop"}: ${one.text}`);
    show(one.meter, !one.isOver && !one.isWaiting);
    if (one.share) one.meter.value = one.share;
    this.#showCount();
  }

  #saying(one) {
    if (one.isOver) return one.job.state === "FAILED" ? `Failed: ${one.job.error?.message ?? ""}` : one.job.state === "CANCELLED" ? "Stopped" : "Done";
    if (one.isWaiting) return [one.position ? `${one.position} ahead` : "Next", starting(one.waitS)].filter(Boolean).join(", ");
    if (one.loading) return `Loading ${one.loading}`;
    return [one.of ? `Step ${one.step} of ${one.of}` : "Drawing", left(one.leftS)].filter(Boolean).join(", ");
  }

  #showCount() {
    const all = [...this.#jobs.values()];
    const waiting = all.filter((one) => one.isWaiting && !one.isOver).length;
    const running = all.filter((one) => !one.isWaiting && !one.isOver).length;
    $("strip-count").textContent = [running && `${running} drawn now`, waiting && `${waiting} waiting`].filter(Boolean).join(", ");
    show($("strip"), all.length > 0);
    show($("strip-tidy"), all.some((one) => one.isOver));
  }

  /** How long it takes, and what the key may still do. */
  async #look() {
    clearTimeout(this.#looking);
    try {
      this.#take(await get("queue"));
    } catch {
      // the stream says what is wrong
    }
  }

  #take({ jobs, allowance }) {
    for (const { job, draw_s: drawS, wait_s: waitS } of jobs) {
      const one = this.#jobs.get(job.id);
      if (!one || one.isOver) continue;
      Object.assign(one, { drawS, waitS });
      this.#show(one);
      this.#onEvent({ name: "outlook", data: { job: job.id, left: one.isWaiting ? starting(waitS) : left(one.leftS ?? drawS) } });
    }
    $("allowance").textContent = allowed(allowance);
    clearTimeout(this.#looking);
    if (this.#unfinished().length && !document.hidden) this.#looking = setTimeout(() => this.#look(), LOOK_EVERY_MS);
  }
}

function allowed({ images_in_flight: images, most_images_in_flight: most, jobs_queued: jobs, most_jobs_queued: mostJobs, requests_left: requests, requests_per_minute: perMinute }) {
  const rate = perMinute && requests < perMinute / 4 ? `, ${requests} requests this minute` : "";
  return `Your key may ask for ${Math.max(0, most - images)} more pictures and ${Math.max(0, mostJobs - jobs)} more jobs now${rate}.`;
}

/** As one says it: seconds, then minutes. */
function about(seconds) {
  return seconds < 90 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`;
}

function left(seconds) {
  return Number.isFinite(seconds) ? `about ${about(seconds)} left` : "";
}

function starting(seconds) {
  return Number.isFinite(seconds) ? `starts in about ${about(seconds)}` : "";
}
