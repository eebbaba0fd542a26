// The page of `detect playground`: a picture, and what was found in it.

import { about, Newest, onRestart, say } from "./server.js";
import { askAbout, setUp } from "./pictures.js";
import { blank, load, map, save, stem } from "./draw.js";

const $ = (id) => document.getElementById(id);

/** Colours of objects, one after the other around the circle, so that neighbours differ. */
const tint = (index) => `hsl(${(index * 137.5) % 360} 85% 55%)`;

async function start() {
  const told = await about();
  const { name, classes: names, threshold } = told.app;
  $("models").textContent = `${name}, ${names.length} ${names.length === 1 ? "class" : "classes"}`;
  $("threshold").value = threshold;
  const hidden = new Set();
  let shown = null; // { picture, answer, image, masks }

  const least = () => Number($("threshold").value);
  const isShown = (object) => object.score >= least() && !hidden.has(object.class);

  function draw() {
    $("threshold-shown").textContent = least().toFixed(2);
    if (!shown) return;
    const { answer, image, masks, picture } = shown;
    const side = Math.max(answer.width, answer.height);
    // Lines and letters are sharp on a small picture, too.
    const scale = Math.max(1, Math.round(1024 / side));
    const context = blank($("picture"), answer.width * scale, answer.height * scale);
    context.scale(scale, scale);
    context.imageSmoothingEnabled = true;
    context.drawImage(image, 0, 0);
    const objects = answer.objects.map((object, index) => ({ ...object, index })).filter(isShown);
    if ($("masks").checked) {
      context.globalAlpha = 0.5;
      for (const { index, mask } of objects) if (masks[index]) context.drawImage(masks[index], mask.x, mask.y);
      context.globalAlpha = 1;
    }
    // A pixel of the screen, in those of the picture: letters and lines are as large on every one.
    const pixel = answer.width / ($("picture").clientWidth || answer.width);
    context.font = `600 ${12 * pixel}px system-ui, sans-serif`;
    context.textBaseline = "top";
    for (const { index, box: [x, y, width, height] } of objects) {
      // Small objects have thin lines.
      context.lineWidth = (Math.min(width, height) < side / 20 ? 1 : 2) * pixel;
      context.strokeStyle = tint(index);
      context.strokeRect(x, y, width, height);
    }
    if ($("labels").checked) writeLabels(context, objects);
    const size = `${answer.size[1]}×${answer.size[0]} pixels`;
    $("caption").textContent = `${picture.name}, ${size} (${answer.seconds.toFixed(2)} s)`;
    $("count").textContent = `${objects.length} of ${answer.objects.length} found`;
    countClasses(answer.objects);
  }

  /** The best objects first, where there is room. */
  function writeLabels(context, objects) {
    const taken = [];
    const size = Number.parseFloat(context.font.split(" ")[1]);
    const [height, pad] = [1.3 * size, 0.25 * size];
    const most = shown.answer.width;
    for (const { index, class: at, score, box: [x, y] } of objects) {
      const text = `${names[at]} ${Math.round(100 * score)}`;
      const width = context.measureText(text).width + 2 * pad;
      const left = Math.max(0, Math.min(x, most - width));
      const top = y >= height ? y - height : y;
      const meets = (box) => left < box[0] + box[2] && box[0] < left + width && top < box[1] + box[3] && box[1] < top + height;
      if (taken.some(meets)) continue;
      taken.push([left, top, width, height]);
      context.fillStyle = tint(index);
      context.fillRect(left, top, width, height);
      context.fillStyle = "#000";
      context.fillText(text, left + pad, top + pad);
    }
  }

  function countClasses(objects) {
    const counts = new Array(names.length).fill(0);
    objects.filter(({ score }) => score >= least()).forEach((object) => (counts[object.class] += 1));
    for (const row of $("class-list").children) {
      const count = counts[Number(row.dataset.class)];
      row.lastElementChild.textContent = count;
      // Of eighty classes those that are there are enough.
      row.hidden = names.length > 12 && count === 0 && !hidden.has(Number(row.dataset.class));
    }
  }

  const rows = names.map((text, index) => {
    const row = document.createElement("label");
    row.dataset.class = index;
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      if (box.checked) hidden.delete(index);
      else hidden.add(index);
      draw();
    });
    const count = document.createElement("span");
    count.className = "quiet";
    row.append(box, ` ${text} `, count);
    return row;
  });
  $("class-list").append(...rows);
  const setAll = (checked) => {
    rows.forEach((row, index) => {
      row.firstElementChild.checked = checked;
      if (checked) hidden.delete(index);
      else hidden.add(index);
    });
    draw();
  };
  $("all").addEventListener("click", () => setAll(true));
  $("none").addEventListener("click", () => setAll(false));

  const newest = new Newest(async (picture) => {
    const answer = await askAbout(picture, "detect");
    const image = await load(answer.picture);
    shown = { picture, answer, image, masks: answer.objects.map(({ mask }, index) => mask && paint(mask, index)) };
    draw();
  });

  for (const id of ["threshold", "masks", "labels"]) $(id).addEventListener("input", draw);
  $("save-json").addEventListener("click", () => saveJson().catch((error) => say(error.message, "error")));
  async function saveJson() {
    if (!shown) throw new Error("There is nothing to save yet: choose a picture.");
    const classes = names.map((_, index) => index).filter((index) => !hidden.has(index));
    const coco = await askAbout(shown.picture, "coco", { threshold: least(), classes });
    save(`${stem(shown.picture.name)}.json`, new Blob([JSON.stringify(coco)], { type: "application/json" }));
  }
  $("save-picture").addEventListener("click", () => {
    if (!shown) return say("There is nothing to save yet: choose a picture.", "error");
    $("picture").toBlob((blob) => save(`${stem(shown.picture.name)}-found.png`, blob), "image/png");
  });

  draw();
  if (told.pictures.length > 0) say("");
  const pictures = setUp(told, (picture) => newest.want(picture));
  onRestart((news) => pictures.list(news));
}

/** A mask in its object's colour; its runs begin outside of it. */
function paint({ width, height, runs }, index) {
  if (width === 0 || height === 0) return null;
  const inside = new Uint8Array(width * height);
  let at = 0;
  runs.forEach((run, number) => {
    if (number % 2 === 1) inside.fill(1, at, at + run);
    at += run;
  });
  const probe = document.createElement("canvas").getContext("2d");
  probe.fillStyle = tint(index);
  probe.fillRect(0, 0, 1, 1);
  const rgb = probe.getImageData(0, 0, 1, 1).data;
  return map(height, width, (pixel) => (inside[pixel] ? [rgb[0], rgb[1], rgb[2], 255] : [0, 0, 0, 0]));
}

start().catch((error) => say(error.message, "error"));
