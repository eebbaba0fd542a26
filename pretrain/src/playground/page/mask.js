// Which patches are visible, and the controls that say so.

import { ask, Newest, say } from "./server.js";
import { blank } from "./draw.js";

const $ = (id) => document.getElementById(id);

export class Mask {
  constructor({ grid: [rows, cols], ratio }) {
    Object.assign(this, { rows, cols, visible: new Array(rows * cols).fill(true), changed: () => {} });
    this.newest = new Newest(async () => {
      const wish = { ratio: Number($("ratio").value), seed: Math.max(0, Math.trunc(Number($("seed").value))) };
      const { visible } = await ask("mask", wish);
      this.set([...visible].map((letter) => letter === "1"));
    });
    $("ratio").value = ratio;
    this.tellRatio();
    $("ratio").addEventListener("input", () => {
      this.tellRatio();
      this.draw();
    });
    $("seed").addEventListener("change", () => this.draw());
    $("again").addEventListener("click", () => {
      $("seed").value = Number($("seed").value) + 1;
      this.draw();
    });
    $("invert").addEventListener("click", () => this.set(this.visible.map((on) => !on)));
    $("show-all").addEventListener("click", () => this.set(this.visible.map(() => true)));
  }

  tellRatio() {
    $("ratio-shown").textContent = `${Math.round(100 * Number($("ratio").value))} %`;
  }

  /** Draws it anew from ratio and seed. */
  draw() {
    return this.newest.want();
  }

  set(visible) {
    if (!visible.includes(true)) {
      say("At least one patch must stay visible: the encoder needs something to see.", "error");
      return;
    }
    this.visible = visible;
    const hidden = visible.filter((on) => !on).length;
    $("count").textContent = `${hidden} of ${visible.length} patches masked`;
    this.changed();
  }

  /** Shows or hides one patch. */
  paint(index, on) {
    if (this.visible[index] !== on) this.set(this.visible.map((was, at) => (at === index ? on : was)));
  }

  /** As questions have it. */
  get letters() {
    return this.visible.map((on) => (on ? "1" : "0")).join("");
  }

  /** As `pretrain reconstruct --mask` reads it. */
  get file() {
    const rows = [];
    for (let row = 0; row < this.rows; row++) {
      rows.push(this.visible.slice(row * this.cols, (row + 1) * this.cols).map(Number));
    }
    return JSON.stringify({ patches: [this.rows, this.cols], visible: rows });
  }

  /**
   * Draws a picture on `canvas`, its masked patches hidden unless `whole`; answers the drawing
   * context and how much larger than the picture it is, so that thin lines stay thin.
   */
  drawOver(canvas, image, whole = false) {
    const scale = Math.max(1, Math.round(672 / image.width));
    const context = blank(canvas, image.width * scale, image.height * scale);
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    context.fillStyle = "rgb(128,128,128)";
    if (!whole) this.patches(canvas, (on, _, ...box) => on || context.fillRect(...box));
    return { context, scale };
  }

  /** Calls `each` with the place of every patch on a canvas. */
  patches(canvas, each) {
    const width = canvas.width / this.cols;
    const height = canvas.height / this.rows;
    this.visible.forEach((on, index) => {
      const row = Math.floor(index / this.cols);
      each(on, index, (index % this.cols) * width, row * height, width, height);
    });
  }
}
