// The page: a key, a form, a stage, a gallery. A job outlives the page: its id is kept, and its events
// are watched again after a reload.

import { call, get, newRequestId, Problem, sendPicture } from "./api.js";
import { $, make, show, tellProblem } from "./dom.js";
import { Form } from "./form.js";
import { Gallery } from "./gallery.js";
import { forget, keep, recall } from "./memory.js";
import { releaseAll } from "./pictures.js";
import { Stage } from "./stage.js";
import { watch } from "./stream.js";

const EXAMPLES = ["a red apple on a white background", "panda on a pink background", "a rocket and a star, night"];

const form = new Form(() => generate());
const stage = new Stage({ onCancel: () => cancel(), onAgain: (spec) => useAgain(spec), onEnlarge: (image) => enlarge(image), begin: form.begin, references: form.references, control: form.control });
const gallery = new Gallery((image) => present(image));
let watching = new AbortController();
let followed = ""; // the job on show: another tab may have another
let isBrowsing = false; // a picture of the past is on the stage, while a job runs

// The key

async function enter(key) {
  const choices = await (await call("choices", { key })).json();
  keep("key", key);
  show($("entrance"), false);
  show($("account"), true);
  show($("studio"), true);
  $("owner").textContent = choices.owner;
  form.fill(choices);
  $("prompt").focus({ preventScroll: true });
  const job = recall("job");
  if (job) follow(job);
  gallery.load().catch((error) => onProblem(error, (problem) => stage.fail(problem)));
}

function leave(problem) {
  watching.abort();
  forget("key", "job");
  if (!problem) forget("form");
  form.begin.clear();
  form.references.clear();
  form.control.clear();
  form.like.clear();
  stage.clear();
  gallery.clear();
  releaseAll();
  form.isBusy = false;
  show($("account"), false);
  show($("studio"), false);
  show($("entrance"), true);
  tellProblem($("key-error"), problem && aboutKey(problem));
  $("key").value = "";
  $("key").focus();
  nameBot();
}

/** Where a key is had from, while a bot runs. Without an answer, nothing is promised. */
async function nameBot() {
  const bot = await get("page/bot.json").catch(() => ({ name: "" }));
  $("bot-link").textContent = bot.name && `@${bot.name}`;
  $("bot-link").href = bot.url ?? "";
  show($("bot"), Boolean(bot.name));
}

/** The daemon's hint is for programs. */
function aboutKey({ message, hint, status }) {
  return { message, hint: status === 401 ? "Paste all of the line that `craft keys create` printed." : hint };
}

/** An error of any call; those about the key end the visit. */
function onProblem(error, tell) {
  if (error instanceof Problem && error.isAboutKey) leave(error);
  else if (error instanceof Problem || error.message) tell(error);
}

$("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  tellProblem($("key-error"), null);
  clearTimeout(waiting);
  try {
    await enter($("key").value.trim());
    $("key").value = "";
  } catch (error) {
    tellProblem($("key-error"), aboutKey(error));
    $("key").focus();
  }
});

$("sign-out").addEventListener("click", () => leave(null));

// A job

async function generate() {
  if (form.isBusy) return;
  form.tell(null);
  try {
    const wish = form.value();
    form.isBusy = true;
    await order(Object.assign(wish, await form.begin.send(), await form.references.send(), await form.control.send()));
  } catch (error) {
    form.isBusy = false;
    onProblem(error, (problem) => form.tell(problem));
  }
}

/** Have a picture made, and show how far it is. */
async function order(wish) {
  const job = await (await call("jobs", { method: "POST", body: { ...wish, request_id: newRequestId() } })).json();
  keep("job", job.id);
  if ($("stage").getBoundingClientRect().top > innerHeight / 2) reveal($("stage"));
  follow(job.id);
}

/** A picture that was made, larger: nothing is drawn. */
async function enlarge(image) {
  if (form.isBusy) return;
  form.isBusy = true;
  try {
    const sha256 = await sendPicture(await (await call(`images/${image.id}`)).blob(), "start");
    await order({ prompt: "", start: { sha256, strength: 0 }, upscale: {} });
  } catch (error) {
    form.isBusy = false;
    onProblem(error, (problem) => stage.fail(problem));
  }
}

/** Show the job until its end, through reloads and broken connections. */
async function follow(jobId) {
  watching.abort();
  watching = new AbortController();
  const { signal } = watching;
  isBrowsing = false;
  followed = jobId;
  form.isBusy = true;
  try {
    for await (const event of watch(jobId, signal)) if (!signal.aborted) on(event);
  } catch (error) {
    if (error.code === "UNKNOWN_JOB") forget("job");
    onProblem(error, (problem) => (problem.code === "UNKNOWN_JOB" ? stage.clear() : stage.fail(problem)));
  }
  if (!signal.aborted) form.isBusy = false;
}

function on({ name, data }) {
  switch (name) {
    case "snapshot":
      for (const image of data.images) gallery.add(image);
      return isBrowsing || stage.begin(data);
    case "queued": return stage.queued(data.position, data.why);
    case "loading": return stage.loading(data.model, data.bytes_done, data.bytes_total);
    case "started": return stage.say(data.notice || "Drawing…");
    case "step": return stage.step(data.index, data.step, data.of, isBrowsing ? null : data.preview);
    case "lost": return stage.say("The connection was lost; trying again…");
    case "image":
      gallery.add(data);
      return isBrowsing ? stage.made(data.index) : stage.image(data);
    case "finished":
      if (isBrowsing) stage.begin(data);
      isBrowsing = false;
      if (data.state === "CANCELLED") forget("job");
      return stage.finish(data);
  }
}

async function cancel() {
  stage.say("Cancelling…");
  try {
    await call(`jobs/${followed}`, { method: "DELETE" });
  } catch (error) {
    if (error.code !== "JOB_FINISHED") onProblem(error, (problem) => stage.fail(problem));
  }
}

// A picture of the past

function present(image) {
  isBrowsing = form.isBusy;
  if (!isBrowsing) forget("job");
  stage.present(image.generate, image, isBrowsing);
  if ($("stage").getBoundingClientRect().top < 0) reveal($("stage"));
}

function useAgain(spec) {
  form.restore({ ...spec, count: 1 });
  $("prompt").focus();
  if (!form.control.isOf(spec.controls)) form.tell({ message: "It was drawn with another control picture than is here.", hint: "Choose that one again." });
  if (!form.references.isOf(spec.references)) form.tell({ message: "The model was shown other pictures than are here.", hint: "Choose those again." });
  if (spec.start && !form.begin.urlOf(spec.start)) form.tell({ message: "It was drawn from a picture that is not here.", hint: "Choose that one again." });
}

/** The settings of a picture from elsewhere. */
form.like.onFile = async (file) => {
  form.tell(null);
  try {
    const found = await (await call("recipes", { method: "POST", blob: file })).json();
    form.like.tell(file.name || "the picture", found, form.fillIn(found.wish));
  } catch (error) {
    onProblem(error, (problem) => form.tell(problem));
  }
};

function reveal(element) {
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  element.scrollIntoView({ block: "start", behavior: isCalm ? "auto" : "smooth" });
}

$("examples").append(...EXAMPLES.map((text) => {
  const button = make("button", { type: "button", textContent: text });
  button.addEventListener("click", () => {
    form.showPrompt(text);
    generate();
  });
  return button;
}));

let waiting = 0;

async function start() {
  const key = recall("key");
  if (!key) return leave(null);
  try {
    await enter(key);
  } catch (error) {
    if (error.isAboutKey) return leave(error);
    show($("entrance"), true); // the daemon is away: say so, and look again
    tellProblem($("key-error"), error);
    waiting = setTimeout(start, 3000);
  }
}

start();
