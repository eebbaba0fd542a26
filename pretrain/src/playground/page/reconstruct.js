// Original, masked, reconstruction, error.

import { Newest, say } from "./server.js";
import { askAbout } from "./pictures.js";
import { blank, colour, grid, load, map, place, save, stem } from "./draw.js";

const $ = (id) => document.getElementById(id);

export class Reconstruct {
  constructor(state) {
    this.state = state;
    this.cursor = 0;
    this.shown = null; // what the last answer was for, and what it was
    this.newest = new Newest(async (picture, letters) => {
      const { models } = await askAbout(picture, "reconstruct", { visible: letters });
      const predictions = await Promise.all(models.map(({ prediction }) => load(prediction)));
      this.shown = { picture, letters, models, predictions };
      this.drawAnswer();
    });
    this.setUp();
  }

  setUp() {
    const { app } = this.state;
    const compares = app.models.length > 1;
    $("divide-label").hidden = !compares;
    if (compares) {
      $("left-name").textContent = app.models[0].name;
      $("right-name").textContent = app.models[1].name;
    }
    $("divide").addEventListener("input", () => this.drawAnswer());
    $("alone").addEventListener("change", () => this.drawAnswer());
    $("save-picture").addEventListener("click", () => this.savePicture());
    $("save-mask").addEventListener("click", () => {
      const blob = new Blob([this.state.mask.file], { type: "application/json" });
      save("mask.json", blob);
    });
    $("error-scale").style.background =
      `linear-gradient(90deg, ${[0, 0.2, 0.4, 0.6, 0.8, 1].map((share) => `rgb(${colour(share)})`).join()})`;
    this.setUpBrush($("masked"));
  }

  /** The first patch of a stroke says whether the stroke masks or unmasks. */
  setUpBrush(canvas) {
    const { mask } = this.state;
    let shows = null;
    const patchAt = (event) => {
      const { x, y } = place(event, canvas);
      return Math.floor(y * mask.rows) * mask.cols + Math.floor(x * mask.cols);
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.cursor = patchAt(event);
      shows = !mask.visible[this.cursor];
      mask.paint(this.cursor, shows);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (shows === null) return;
      // A fast stroke jumps over patches between two events.
      for (const step of event.getCoalescedEvents?.() ?? []) mask.paint(patchAt(step), shows);
      mask.paint(patchAt(event), shows);
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (shows = null));
    canvas.addEventListener("keydown", (event) => {
      const row = Math.floor(this.cursor / mask.cols);
      const col = this.cursor % mask.cols;
      const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
      if (moves[event.key]) {
        const [down, right] = moves[event.key];
        const clamp = (value, count) => Math.min(Math.max(value, 0), count - 1);
        this.cursor = clamp(row + down, mask.rows) * mask.cols + clamp(col + right, mask.cols);
        this.drawMasked();
      } else if (event.key === " " || event.key === "Enter") {
        mask.paint(this.cursor, !mask.visible[this.cursor]);
      } else {
        return;
      }
      event.preventDefault();
    });
    canvas.addEventListener("focus", () => this.drawMasked());
    canvas.addEventListener("blur", () => this.drawMasked());
  }

  refresh() {
    const { picture, image, mask } = this.state;
    if (!image) return;
    blank($("original"), image.width, image.height).drawImage(image, 0, 0);
    this.drawMasked();
    if (!mask.visible.includes(false)) {
      this.shown = null;
      blank($("reconstruction"), image.width, image.height).drawImage(image, 0, 0);
      blank($("error"), mask.cols, mask.rows);
      $("reconstruction-caption").innerHTML = "<b>Reconstruction</b>";
      $("error-caption").textContent = "";
      say("Mask a patch to see it reconstructed.");
      return;
    }
    this.newest.want(picture, mask.letters);
  }

  drawMasked() {
    const { image, mask } = this.state;
    if (!image) return;
    const canvas = $("masked");
    const { context, scale } = mask.drawOver(canvas, image);
    grid(context, mask.rows, mask.cols);
    if (document.activeElement === canvas) {
      mask.patches(canvas, (_, index, x, y, width, height) => {
        if (index !== this.cursor) return;
        context.lineWidth = 4 * scale;
        context.strokeStyle = "#000";
        context.strokeRect(x, y, width, height);
        context.lineWidth = 2 * scale;
        context.strokeStyle = "#fff";
        context.strokeRect(x, y, width, height);
      });
    }
  }

  drawAnswer() {
    const { image, mask, app, picture } = this.state;
    if (!this.shown || this.shown.picture !== picture) return;
    const { models, predictions, letters } = this.shown;
    const visible = [...letters].map((letter) => letter === "1");
    const compares = models.length > 1;
    const divide = compares ? Number($("divide").value) : 1;

    const canvas = $("reconstruction");
    const context = blank(canvas, image.width, image.height);
    predictions.forEach((prediction, at) => {
      context.save();
      context.beginPath();
      const from = at === 0 ? 0 : divide * canvas.width;
      context.rect(from, 0, at === 0 ? divide * canvas.width : canvas.width - from, canvas.height);
      context.clip();
      context.drawImage(prediction, 0, 0);
      context.restore();
    });
    if (!$("alone").checked) {
      mask.patches(canvas, (_, index, x, y, width, height) => {
        if (visible[index]) context.drawImage(image, x, y, width, height, x, y, width, height);
      });
    }
    if (compares) {
      context.fillStyle = "#fff";
      context.fillRect(divide * canvas.width - 1, 0, 2, canvas.height);
    }

    const hidden = models.flatMap(({ errors }) => errors.filter((_, index) => !visible[index]));
    const most = Math.max(...hidden, 1e-9);
    const small = map(mask.rows, mask.cols, (index) => {
      if (visible[index]) return [0, 0, 0, 0];
      const side = compares && (index % mask.cols) + 0.5 > divide * mask.cols ? 1 : 0;
      return [...colour(models[side].errors[index] / most), 255];
    });
    blank($("error"), mask.cols, mask.rows).drawImage(small, 0, 0);

    const losses = models.map(({ loss }, at) => (compares ? `${app.models[at].name}: ` : "") + `loss ${loss.toFixed(3)}`);
    const seconds = models.reduce((sum, model) => sum + model.seconds, 0);
    $("reconstruction-caption").innerHTML = "<b>Reconstruction</b> ";
    $("reconstruction-caption").append(`${losses.join("; ")} (${seconds.toFixed(2)} s)`);
    $("reconstruction-caption").dataset.losses = JSON.stringify(models.map(({ loss }) => loss));
    $("error-most").textContent = most.toFixed(2);
    $("error-caption").innerHTML = "<b>Error</b> of each masked patch: mean squared, on normalised pixels";
  }

  savePicture() {
    if (!this.shown) {
      say("There is nothing to save yet: choose a picture and mask a patch.", "error");
      return;
    }
    const parts = ["original", "masked", "reconstruction", "error"].map($);
    const { width, height } = $("original");
    const gap = 8;
    const sheet = document.createElement("canvas");
    const context = blank(sheet, parts.length * (width + gap) - gap, height);
    context.fillStyle = "#fff";
    context.fillRect(0, 0, sheet.width, sheet.height);
    parts.forEach((part, at) => context.drawImage(part, at * (width + gap), 0, width, height));
    const name = `${stem(this.state.picture.name)}-reconstruction.png`;
    sheet.toBlob((blob) => save(name, blob), "image/png");
  }
}
