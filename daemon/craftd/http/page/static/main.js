// The page: a key, a form, a strip of jobs, a stage for one of them, a gallery. A job outlives the page: after a
// reload, what is unfinished is found again.

import { call, get, newRequestId, Problem, sendPicture } from "./api.js";
import { $, make, show, tellProblem } from "./dom.js";
import { Form } from "./form.js";
import { Gallery } from "./gallery.js";
import { forget, keep, recall } from "./memory.js";
import { releaseAll } from "./pictures.js";
import { Stage } from "./stage.js";
import { Strip } from "./strip.js";

const EXAMPLES = ["a red apple on a white background", "panda on a pink background", "a rocket and a star, night"];

const form = new Form(() => generate());
const stage = new Stage({ onCancel: () => cancel(), onAgain: (spec) => useAgain(spec), onBegin: (image) => beginFrom(image), onEnlarge: (image) => enlarge(image), onView: (image) => view(image), begin: form.begin, references: form.references, control: form.control });
const gallery = new Gallery({
  onPick: (id) => pick(id),
  onView: (id) => view(gallery.find(id)),
  onCompare: (one, other) => compare(gallery.find(one), gallery.find(other)),
  onProblem: (error) => onProblem(error, (problem) => stage.fail(problem)),
});
let viewer = null; // loaded when it is first opened
const strip = new Strip({ onEvent: (event) => on(event), onShow: (id) => look(id), onProblem: (error) => onProblem(error, (problem) => stage.fail(problem)) });
let followed = ""; // the job that the stage belongs to
let isBrowsing = false; // a picture of the past is on the stage, while that job runs
let isChosen = false; // what is on the stage was chosen to be looked at: what is drawn next does not take its place

// The key

async function enter(key) {
  const choices = await (await call("choices", { key })).json();
  keep("key", key);
  show($("entrance"), false);
  show($("account"), true);
  show($("studio"), true);
  $("owner").textContent = choices.owner;
  show($("admin-open"), choices.role === "admin");
  form.fill(choices);
  $("prompt").focus({ preventScroll: true });
  strip.load().then(() => lookAgain(recall("job"))).catch((error) => onProblem(error, (problem) => stage.fail(problem)));
  gallery.load().catch((error) => onProblem(error, (problem) => stage.fail(problem)));
}

function leave(problem) {
  [followed, isBrowsing, isChosen] = ["", false, false];
  strip.clear();
  $("viewer").close();
  $("admin")?.remove();
  $("admin-open").setAttribute("aria-pressed", false);
  forget("key", "job");
  if (!problem) forget("form", "history");
  form.begin.clear();
  form.references.clear();
  form.control.clear();
  form.like.clear();
  form.asking.clear();
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

$("admin-open").addEventListener("click", async () => (await import("./admin.js")).toggle());
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

/** Have a picture made. It comes to the stage, unless another is being drawn there: then it waits in the strip. */
async function order(wish) {
  const job = await (await call("jobs", { method: "POST", body: { ...wish, request_id: newRequestId() } })).json();
  form.isBusy = false;
  if (wish.prompt) form.noteSent();
  const isTaken = strip.isUnfinished(followed);
  if (!isTaken) prepare(job);
  strip.add(job);
  $("said").textContent = isTaken ? "It waits in the queue." : "";
  if (!isTaken && $("stage").getBoundingClientRect().top > innerHeight / 2) reveal($("stage"));
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

/** A picture that was made becomes the one to begin from. */
async function beginFrom(image) {
  form.tell(null);
  if ($("begin").hidden) return form.tell({ message: "This model begins from no pictures.", hint: "Choose another.", field: "model" });
  try {
    const blob = await (await call(`images/${image.id}`)).blob();
    await form.begin.choose(new File([blob], $("save").download, { type: blob.type }));
    $("strength-exact").focus();
  } catch (error) {
    onProblem(error, (problem) => stage.fail(problem));
  }
}

/** The stage belongs to this job from now on. */
function prepare(job) {
  keep("job", job.id);
  [followed, isBrowsing, isChosen] = [job.id, false, false];
  stage.begin(job);
}

/** A job of the strip, as far as it is. */
function look(id) {
  const { job, index, step, of, preview, isOver, images } = strip.find(id);
  prepare(job);
  isChosen = isOver;
  if (isOver) return stage.finish(job);
  for (const image of images.values()) stage.image(image);
  if (of) stage.step(index, step, of, preview?.split(",")[1]);
}

/** The job that was on the stage when the page was left. */
async function lookAgain(id) {
  if (!id) return;
  if (strip.find(id)) return look(id);
  try {
    const job = await get(`jobs/${id}`);
    if (followed) return; // something was asked for meanwhile
    prepare(job);
    stage.finish(job);
  } catch (error) {
    if (error.code !== "UNKNOWN_JOB") throw error;
    forget("job");
  }
}

function on({ name, data }) {
  if (name === "lost") return stage.say("The connection was lost; trying again…");
  if (name === "image") gallery.add(data);
  for (const image of data.images ?? []) gallery.add(image);
  const isNext = followed && ["started", "step", "image"].includes(name) && !isChosen && !strip.isUnfinished(followed);
  if (data.job !== followed && isNext) look(data.job);
  if (data.job === followed) tell(name, data);
}

/** What is told of the job that the stage belongs to. */
function tell(name, data) {
  switch (name) {
    case "snapshot": return isBrowsing || stage.begin(data);
    case "queued": return stage.queued(data.position, data.why);
    case "loading": return stage.loading(data.model, data.bytes_done, data.bytes_total);
    case "started": return stage.say(data.notice || "Drawing…");
    case "outlook": return stage.left(data.left);
    case "step": return stage.step(data.index, data.step, data.of, isBrowsing ? null : data.preview);
    case "image": return isBrowsing ? stage.made(data.index) : stage.image(data);
    case "finished":
      if (isBrowsing) stage.begin(data);
      isBrowsing = false;
      if (data.state === "CANCELLED") forget("job");
      return stage.finish(data);
  }
}

function cancel() {
  stage.say("Cancelling…");
  strip.cancel(followed);
}

// A picture of the past

async function pick(id) {
  try {
    present(await get(`images/${id}/details`));
  } catch (error) {
    onProblem(error, (problem) => stage.fail(problem));
  }
}

/** `image`: as any answer has it; the gallery's own knows its marks. */
function view(image) {
  return inViewer((one) => one.open(gallery.find(image.id) ?? image));
}

function compare(one, other) {
  return inViewer((viewing) => viewing.compare(one, other));
}

async function inViewer(act) {
  try {
    const { Viewer } = await import("./viewer.js");
    viewer ??= new Viewer({ gallery, onProblem: (error) => onProblem(error, ({ message }) => ($("viewer-said").textContent = message)) });
    await act(viewer);
  } catch (error) {
    onProblem(error, (problem) => stage.fail(problem));
  }
}

function present(image) {
  isBrowsing = strip.isUnfinished(followed);
  isChosen = !isBrowsing;
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
    fillIn(file, await recipeOf(file));
  } catch (error) {
    onProblem(error, (problem) => form.tell(problem));
  }
};

/** One that came from anywhere: where it says how it was made, what it is for is asked. `accept`: draw from it. */
form.onDropped = async (file, accept) => {
  let found = null;
  try {
    found = await recipeOf(file);
  } catch (error) {
    if (error instanceof Problem && error.isAboutKey) return leave(error);
    if (!accept) form.tell(error);
    return accept?.();
  }
  form.asking.ask(`${file.name || "The picture"} says how ${found.program} made it.`, () => fillIn(file, found), accept);
};

async function recipeOf(file) {
  return (await call("recipes", { method: "POST", blob: file })).json();
}

function fillIn(file, found) {
  form.like.tell(file.name || "the picture", found, form.fillIn(found.wish));
  $("prompt").focus();
}

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
