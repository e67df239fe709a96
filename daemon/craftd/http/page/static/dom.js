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

/** A message and what to do next, in a box that screen readers announce; nothing empties it. */
export function tellProblem(box, problem) {
  box.replaceChildren();
  if (problem) {
    box.append(make("p", { textContent: problem.message }));
    if (problem.hint) box.append(make("p", { textContent: problem.hint }));
  }
}
