// For an admin's key: everybody's queue, the workers, the models and the keys.

import { call, get } from "./api.js";
import { $, make, show, tellProblem } from "./dom.js";

const EVERY_MS = 5_000;
let timer = 0;

/** Shows it in the studio's place, and as it changes until it is closed. */
export async function toggle() {
  const view = $("admin") ?? build();
  const isOpen = view.hidden;
  show(view, isOpen);
  show($("studio"), !isOpen);
  $("admin-open").setAttribute("aria-pressed", isOpen);
  clearTimeout(timer);
  if (isOpen) await refresh();
}

function build() {
  const problem = make("div", { className: "problem", id: "admin-error" });
  problem.setAttribute("role", "alert");
  const view = make("section", { id: "admin", className: "card", hidden: true }, make("h2", { textContent: "What everybody has" }), problem, make("div", { id: "admin-tables" }));
  view.setAttribute("aria-label", "Administration");
  $("studio").after(view);
  return view;
}

async function refresh() {
  try {
    const [{ keys, models, workers }, queue] = await Promise.all([get("overview"), get("queue?everyone=true")]);
    if (!$("admin") || $("admin").hidden) return;
    tellProblem($("admin-error"), null);
    if (!$("admin-tables").contains(document.activeElement)) {
      $("admin-tables").replaceChildren(
        table(`Queue: ${queue.running} drawn now, ${queue.queued} waiting`, ["Owner", "State", "Prompt", ""], queue.jobs.map(({ owner, job }) => [owner, job.state.toLowerCase(), (job.generate?.prompt ?? job.kind).slice(0, 80), stop(owner, job)])),
        table("Workers", ["Name", "Device", "State", "Models", "Pictures"], workers.map((one) => [one.name, one.device, one.is_drained ? "drained" : one.state.toLowerCase(), one.models.join(", "), `${one.rows} of ${one.capacity_rows}`])),
        table("Models", ["Name", "Kind", "GiB", "Loaded on"], models.map((one) => [one.name, one.refused || one.base, (one.size_bytes / 2 ** 30).toFixed(2), one.loaded_on.join(", ")])),
        table("Keys", ["Owner", "Role", "Tier", "State", "Last used"], keys.map((one) => [one.owner, one.role, one.tier, one.state, one.last_used_time ? new Date(one.last_used_time).toLocaleString() : "never"])));
    }
  } catch (error) {
    if ($("admin-error")) tellProblem($("admin-error"), error);
  }
  clearTimeout(timer);
  if ($("admin") && !$("admin").hidden) timer = setTimeout(refresh, EVERY_MS);
}

function table(title, heads, rows) {
  const head = make("tr", {}, ...heads.map((text) => make(text ? "th" : "td", text ? { textContent: text, scope: "col" } : {})));
  const body = rows.map((cells) => make("tr", {}, ...cells.map((cell) => make("td", {}, cell))));
  const box = make("div", { className: "scrolled", tabIndex: 0 }, make("table", {}, make("caption", { textContent: title }), make("thead", {}, head), make("tbody", {}, ...body)));
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", title);
  return box;
}

function stop(owner, job) {
  const button = make("button", { type: "button", textContent: "Stop" });
  button.setAttribute("aria-label", `Stop ${owner}'s job ${job.id}`);
  button.addEventListener("click", async () => {
    button.disabled = true;
    await call(`jobs/${job.id}`, { method: "DELETE" }).catch((error) => tellProblem($("admin-error"), error));
    await refresh();
  });
  return button;
}
