// Elements, made and found. Text from users and servers goes through textContent alone.

export const $ = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export function show(element, isShown) {
  element.hidden = !isShown;
}

/** A message and what to do next, in a box that screen readers announce; null empties it. */
export function tellProblem(box, problem) {
  const lines = problem ? [problem.message, problem.hint].filter(Boolean) : [];
  box.replaceChildren(...lines.map((line) => make("p", {}, ...withCode(line))));
}

/** What stands between backticks is code. */
function withCode(text) {
  return text.split(/`([^`]+)`/).map((part, place) => (place % 2 ? make("code", { textContent: part }) : part));
}
