// An event stream read with fetch, since EventSource sends no headers. It goes on after a break:
// the stream's first event is a snapshot, which holds whatever was missed.

import { call, Problem } from "./api.js";

const LONGEST_PAUSE_MS = 4_000;

/** The events of jobs as {name, data}, each until its "finished", data.job saying whose; {name: "lost"}: the connection broke. */
export async function* watch(jobIds, signal) {
  const left = new Set(jobIds);
  let pause = 500;
  while (left.size) {
    try {
      const response = await call(`events?preview_every=1&${[...left].map((id) => `job=${id}`).join("&")}`, { signal });
      for await (const event of parse(response.body)) {
        const isGone = event.data.reason === "UNKNOWN_JOB";
        if (event.name === "problem" && !isGone) break;
        pause = 500;
        yield event;
        if (event.name === "finished" || isGone) left.delete(event.data.job);
        if (!left.size) return;
      }
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error instanceof Problem && !error.isPassing) throw error;
    }
    if (signal.aborted) return;
    yield { name: "lost", data: {} };
    await sleep(pause, signal);
    if (signal.aborted) return;
    pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
  }
}

async function* parse(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    while (true) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (text + value).split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const event = parseBlock(block);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parseBlock(block) {
  const fields = { event: "", data: "" };
  for (const line of block.split("\n")) {
    const [, name, value] = /^(\w+): ?(.*)$/.exec(line) ?? [];
    if (name in fields) fields[name] += value;
  }
  return fields.event && { name: fields.event, data: JSON.parse(fields.data || "{}") };
}

function sleep(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
