// Pictures' bytes, fetched with the key and kept as blob URLs, so that none is fetched twice.

import { call } from "./api.js";

const MOST = 300;
const urls = new Map(); // path -> promise of a blob URL, the latest used last

/** A URL for an <img>; `side`: a small one, of so many pixels at most. */
export function pictureUrl(imageId, side = 0) {
  return pictureAt(side ? `images/${imageId}/thumbnail?side=${side}` : `images/${imageId}`);
}

export function pictureAt(path) {
  const url = urls.get(path) ?? load(path);
  urls.delete(path);
  urls.set(path, url);
  if (urls.size > MOST) release(urls.keys().next().value);
  return url;
}

export function releaseAll() {
  for (const path of [...urls.keys()]) release(path);
}

async function load(path) {
  try {
    return URL.createObjectURL(await (await call(path)).blob());
  } catch (error) {
    urls.delete(path);
    throw error;
  }
}

function release(path) {
  urls.get(path).then(URL.revokeObjectURL, () => {});
  urls.delete(path);
}
