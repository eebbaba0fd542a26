// The page of `classify playground`: a picture, and how likely each class is.

import { about, Newest, onRestart, say } from "./server.js";
import { askAbout, setUp } from "./pictures.js";
import { blank, load } from "./draw.js";

const $ = (id) => document.getElementById(id);

async function start() {
  const told = await about();
  const { name, classes: names } = told.app;
  $("models").textContent = `${name}, ${names.length} classes`;
  $("top").max = Math.min(20, names.length);
  let shown = null;

  function draw() {
    $("top-shown").textContent = $("top").value;
    if (!shown) return;
    const rows = [];
    for (let rank = 0; rank < Number($("top").value); rank++) {
      const share = shown.probabilities[rank];
      const row = [0, 1, 2].map(() => document.createElement("div"));
      row[0].textContent = names[shown.classes[rank]];
      row[1].className = "bar";
      const filled = document.createElement("div");
      filled.style.width = `${100 * share}%`;
      row[1].append(filled);
      row[2].className = "share";
      row[2].textContent = `${(100 * share).toFixed(1)} %`;
      row[0].setAttribute("role", "listitem");
      rows.push(...row);
    }
    $("bars").replaceChildren(...rows);
  }

  const newest = new Newest(async (picture) => {
    const answer = await askAbout(picture, "classify");
    const image = await load(answer.picture);
    shown = answer;
    // What the classifier sees may be small.
    const scale = Math.max(1, Math.round(320 / image.width));
    const canvas = $("picture");
    const context = blank(canvas, scale * image.width, scale * image.height);
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    $("caption").textContent = `${picture.name}, the part that the classifier sees (${answer.seconds.toFixed(2)} s)`;
    draw();
  });

  $("top").addEventListener("input", draw);
  draw();
  if (told.pictures.length > 0) say("");
  const pictures = setUp(told, (picture) => newest.want(picture));
  onRestart((news) => pictures.list(news));
}

start().catch((error) => say(error.message, "error"));
