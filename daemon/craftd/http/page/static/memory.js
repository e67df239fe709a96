// What the browser keeps between visits. Where it keeps nothing (private windows), this page's life.

const fallback = new Map();

export function recall(name) {
  try {
    return JSON.parse(localStorage.getItem(`craft.${name}`));
  } catch {
    return fallback.get(name) ?? null;
  }
}

export function keep(name, value) {
  fallback.set(name, value);
  try {
    localStorage.setItem(`craft.${name}`, JSON.stringify(value));
  } catch {
    // kept above
  }
}

export function forget(...names) {
  for (const name of names) {
    fallback.delete(name);
    try {
      localStorage.removeItem(`craft.${name}`);
    } catch {
      // forgotten above
    }
  }
}
