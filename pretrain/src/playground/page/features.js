// What the encoder sees: features as colours, and what is alike.

import { Newest } from "./server.js";
import { askAbout } from "./pictures.js";
import { blank, colour, load, map, place } from "./draw.js";

const $ = (id) => document.getElementById(id);
const HIDDEN = [128, 128, 128, 255];

export class Features {
  constructor(state) {
    this.state = state;
    this.point = { x: 0.5, y: 0.5 };
    this.stages = [];
    this.select = document.querySelector("#features select.model");
    this.colours = new Newest(async (picture, question) => {
      const { stages } = await askAbout(picture, "features", question);
      const images = await Promise.all(stages.map(({ colours }) => load(colours)));
      this.stages = stages;
      this.drawColours(images);
      this.pointAt(this.point);
    });
    this.similar = new Newest(async (picture, question) => {
      const { stages } = await askAbout(picture, "similar", question);
      stages.forEach((stage, at) => this.drawSimilar(at, stage));
    });
    this.select.addEventListener("change", () => this.refresh());
    $("visible-alone").addEventListener("change", () => this.refresh());
    this.setUpPointer($("pointed"));
  }

  get question() {
    const alone = $("visible-alone").checked;
    return { model: Number(this.select.value), visible: alone ? this.state.mask.letters : null };
  }

  setUpPointer(canvas) {
    canvas.addEventListener("pointermove", (event) => this.pointAt(place(event, canvas)));
    canvas.addEventListener("pointerdown", (event) => this.pointAt(place(event, canvas)));
    canvas.addEventListener("keydown", (event) => {
      const moves = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
      if (!moves[event.key]) return;
      event.preventDefault();
      const [right, down] = moves[event.key];
      const move = (value, step) => Math.min(Math.max(value + step / 32, 0), 1 - 1e-9);
      this.pointAt({ x: move(this.point.x, right), y: move(this.point.y, down) });
    });
  }

  refresh() {
    const { image, picture } = this.state;
    if (!image) return;
    this.drawPicture();
    this.colours.want(picture, this.question);
  }

  pointAt(point) {
    this.point = point;
    this.drawPicture();
    if (this.stages.length > 0) this.similar.want(this.state.picture, { ...this.question, ...point });
  }

  drawPicture() {
    const { image, mask } = this.state;
    if (!image) return;
    const canvas = $("pointed");
    const { context, scale } = mask.drawOver(canvas, image, !$("visible-alone").checked);
    const [x, y] = [this.point.x * canvas.width, this.point.y * canvas.height];
    for (const [width, style] of [[5 * scale, "#000"], [2 * scale, "#fff"]]) {
      context.lineWidth = width;
      context.strokeStyle = style;
      context.beginPath();
      context.arc(x, y, 6 * scale, 0, 7);
      context.stroke();
    }
  }

  drawColours(images) {
    const { app } = this.state;
    const figures = this.stages.map(({ channels, height, width, visible }, at) => {
      const figure = document.createElement("figure");
      const canvases = ["colours", "similar"].map((kind) => {
        const canvas = document.createElement("canvas");
        canvas.className = "pixels";
        canvas.id = `${kind}-${at}`;
        canvas.setAttribute("role", "img");
        return canvas;
      });
      canvases[0].setAttribute("aria-label", `Stage ${at + 1}: principal components as colours`);
      canvases[1].setAttribute("aria-label", `Stage ${at + 1}: similarity to the place pointed at`);
      const context = blank(canvases[0], width, height);
      context.drawImage(images[at], 0, 0);
      if (visible) {
        const hidden = map(height, width, (index) => (visible[index] === "1" ? [0, 0, 0, 0] : HIDDEN));
        context.drawImage(hidden, 0, 0);
      }
      blank(canvases[1], width, height);
      canvases[1].style.marginTop = "8px";
      const caption = document.createElement("figcaption");
      const { stride } = app.models[Number(this.select.value)].stages[at];
      const name = document.createElement("b");
      name.textContent = `Stage ${at + 1}`;
      caption.append(name, `, 1/${stride}: ${channels} channels, ${width}×${height}`);
      figure.append(...canvases, caption);
      return figure;
    });
    $("stages").replaceChildren(...figures);
  }

  drawSimilar(at, { at: [row, col], values }) {
    const canvas = $(`similar-${at}`);
    if (!canvas) return;
    const { height, width, visible } = this.stages[at];
    if (values.length !== height * width) return;
    const small = map(height, width, (index) => {
      if (visible && visible[index] !== "1") return HIDDEN;
      if (index === row * width + col) return [255, 255, 255, 255];
      return [...colour(Math.max(values[index], 0) / 100), 255];
    });
    blank(canvas, width, height).drawImage(small, 0, 0);
    canvas.dataset.values = values.length;
  }
}
