// A mask, painted over a picture: what is painted is drawn anew.

import { $ } from "./dom.js";

const STEP = 0.5; // of the brush, that an arrow key moves it

/** Over the canvas `board`, whose pixels are the picture's. `onChange` is told of every stroke. */
export class Mask {
  #acts = []; // {kind: "stroke", size, points} | {kind: "invert"} | {kind: "clear"}, as they were done
  #stroke = null; // that goes on
  #place = { x: 0, y: 0 }; // of the brush, in the picture's pixels
  #onChange;

  constructor(onChange) {
    this.#onChange = onChange;
    const board = $("board");
    board.addEventListener("pointerdown", (event) => this.#begin(event));
    board.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) board.addEventListener(end, () => (this.#stroke = null));
    board.addEventListener("pointerleave", () => $("brush").classList.remove("seen"));
    board.addEventListener("keydown", (event) => this.#onKey(event));
    board.addEventListener("focus", () => this.#showBrush());
    board.addEventListener("blur", () => $("brush").classList.remove("seen"));
    $("brush-size").addEventListener("input", () => this.#showBrush());
    $("mask-undo").addEventListener("click", () => this.undo());
    $("mask-invert").addEventListener("click", () => this.#act({ kind: "invert" }));
    $("mask-clear").addEventListener("click", () => this.#act({ kind: "clear" }));
  }

  /** For a picture of that size. */
  begin(width, height) {
    Object.assign($("board"), { width, height });
    this.#acts = [];
    this.#place = { x: width / 2, y: height / 2 };
    this.#draw();
  }

  get isEmpty() {
    const last = this.#acts.findLastIndex((act) => act.kind === "clear");
    return last === this.#acts.length - 1;
  }

  undo() {
    this.#acts.pop();
    this.#draw();
  }

  /** A PNG, white where something was painted and black elsewhere; null: nothing was. */
  async picture() {
    if (this.isEmpty) return null;
    const { width, height } = $("board");
    const flat = new OffscreenCanvas(width, height);
    const context = flat.getContext("2d");
    context.drawImage($("board"), 0, 0);
    context.globalCompositeOperation = "source-in";
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    context.globalCompositeOperation = "destination-over";
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    return flat.convertToBlob({ type: "image/png" });
  }

  get #size() {
    return (Number($("brush-size").value) / 100) * Math.min($("board").width, $("board").height);
  }

  #begin(event) {
    if (event.button) return;
    $("board").setPointerCapture(event.pointerId);
    this.#moveTo(this.#placeOf(event));
    this.#startStroke();
  }

  #move(event) {
    this.#moveTo(this.#placeOf(event));
    if (this.#stroke) this.#goOn();
  }

  #onKey(event) {
    const step = Math.max(1, STEP * this.#size);
    const ways = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (ways[event.key]) {
      const [x, y] = ways[event.key];
      if (event.shiftKey) this.#startStroke();
      this.#moveTo({ x: this.#place.x + x, y: this.#place.y + y });
      if (event.shiftKey) this.#goOn();
      this.#stroke = null;
    } else if (event.key === " ") {
      this.#startStroke();
      this.#stroke = null;
    } else if (event.key === "z" && (event.ctrlKey || event.metaKey)) this.undo();
    else return;
    event.preventDefault();
  }

  #placeOf(event) {
    const { left, top, width, height } = $("board").getBoundingClientRect();
    const x = ((event.clientX - left) / width) * $("board").width;
    return { x, y: ((event.clientY - top) / height) * $("board").height };
  }

  #moveTo({ x, y }) {
    const { width, height } = $("board");
    this.#place = { x: Math.min(Math.max(x, 0), width), y: Math.min(Math.max(y, 0), height) };
    this.#showBrush();
  }

  #showBrush() {
    const { width, height } = $("board");
    const { style } = $("brush");
    style.setProperty("--x", `${(100 * this.#place.x) / width}%`);
    style.setProperty("--y", `${(100 * this.#place.y) / height}%`);
    style.setProperty("--across", `${(100 * this.#size) / width}%`);
    $("brush").classList.add("seen");
  }

  #startStroke() {
    this.#stroke = { kind: "stroke", size: this.#size, points: [this.#place] };
    this.#act(this.#stroke);
  }

  #goOn() {
    this.#stroke.points.push(this.#place);
    this.#draw();
  }

  #act(act) {
    this.#acts.push(act);
    this.#draw();
  }

  #draw() {
    const context = $("board").getContext("2d");
    const { width, height } = $("board");
    context.clearRect(0, 0, width, height);
    context.fillStyle = context.strokeStyle = "#ff7a33";
    context.lineCap = context.lineJoin = "round";
    for (const act of this.#acts) {
      if (act.kind === "clear") context.clearRect(0, 0, width, height);
      else if (act.kind === "invert") invert(context, width, height);
      else paint(context, act);
    }
    $("mask-undo").disabled = !this.#acts.length;
    $("mask-clear").disabled = this.isEmpty;
    this.#onChange();
  }
}

function paint(context, { size, points }) {
  context.lineWidth = size;
  context.beginPath();
  context.moveTo(points[0].x, points[0].y);
  for (const { x, y } of points) context.lineTo(x + 0.01, y); // a line without length is not drawn
  context.stroke();
}

function invert(context, width, height) {
  context.globalCompositeOperation = "source-out";
  context.fillRect(0, 0, width, height);
  context.globalCompositeOperation = "source-over";
}
