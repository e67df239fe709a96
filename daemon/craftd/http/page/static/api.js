// Calls to the daemon, with the key.

import { recall } from "./memory.js";

/** Why a call failed, in the daemon's own words. `status` 0: it did not answer. */
export class Problem extends Error {
  constructor(status, { detail = "", hint = "", code = "", field = "" } = {}) {
    super(detail || `The answer was ${status}.`);
    Object.assign(this, { status, hint, code, field });
  }

  /** The key does not open anything (any more). */
  get isAboutKey() {
    return this.status === 401 || this.code === "KEY_SUSPENDED" || this.code === "KEY_BANNED";
  }

  /** The same call may succeed later. */
  get isPassing() {
    return this.status === 0 || this.status === 429 || this.status > 501;
  }
}

/** `body` goes as JSON, a `blob` as it is. */
export async function call(path, { method = "GET", body, blob, signal, key = recall("key") } = {}) {
  const headers = { "X-API-Key": key ?? "" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const sent = blob ?? (body && JSON.stringify(body));
  let response;
  try {
    response = await fetch(path, { method, headers, body: sent, signal, credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "craft does not answer.", hint: "Is it running? craft daemon status tells." });
  }
  if (!response.ok) throw new Problem(response.status, await response.json().catch(() => ({})));
  return response;
}

export async function get(path) {
  return (await call(path)).json();
}

/** A name for a request that nobody else has: the same name again makes no second job. */
export function newRequestId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The sha256 by which the daemon has a picture from now on; `field`: that it is for. */
export async function sendPicture(blob, field) {
  try {
    return (await (await call("inputs", { method: "POST", blob })).json()).sha256;
  } catch (error) {
    if (error.field === "picture") error.field = field;
    throw error;
  }
}
