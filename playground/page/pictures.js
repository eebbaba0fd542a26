// Choosing a picture: those of the program, a file of one's own, or one that is dropped.

import { ask, say, upload } from "./server.js";

const uploads = new Map(); // the number of an uploaded picture: its file
let limits = { upload: Infinity };

/**
 * Fills #pictures, and calls `chosen(picture)` with { id, name } for what is chosen first and
 * thereafter. Answers which is chosen now.
 */
export function setUp(told, chosen) {
  const strip = document.getElementById("pictures");
  const input = document.getElementById("upload");
  let current = null;

  function choose(picture) {
    current = picture;
    for (const button of strip.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", Number(button.dataset.id) === picture.id);
    }
    document.getElementById("picture-name").textContent = picture.name;
    chosen(picture);
  }

  function add(picture, source) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "thumbnail";
    button.dataset.id = picture.id;
    button.title = picture.name;
    const image = new Image();
    image.alt = picture.name;
    image.loading = "lazy";
    image.src = source ?? `pictures/${picture.id}`;
    image.addEventListener("error", () => {
      button.replaceChildren(document.createTextNode(picture.name));
    }, { once: true });
    button.append(image);
    button.addEventListener("click", () => choose(picture));
    strip.append(button);
    return button;
  }

  async function take(files) {
    for (const file of files) {
      if (file.size > limits.upload) {
        const megabytes = Math.round(limits.upload / 1e6);
        say(`${file.name} is longer than ${megabytes} MB; --max-upload of the program allows more`, "error");
        continue;
      }
      try {
        const picture = await upload(file);
        uploads.set(picture.id, file);
        add(picture).scrollIntoView({ block: "nearest", inline: "nearest" });
        say("");
        choose(picture);
      } catch (error) {
        say(error.message, "error");
      }
    }
  }

  function list(news) {
    limits = news.limits;
    strip.replaceChildren();
    news.pictures.forEach((picture) => add(picture));
    const wanted = current && news.pictures.find((picture) => picture.name === current.name);
    const first = wanted ?? news.pictures[0];
    if (first) choose(first);
    else say("Choose a picture, or drop one here.");
  }

  input.addEventListener("change", () => {
    take([...input.files]).then(() => (input.value = ""));
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dropping");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    const files = [...(event.dataTransfer?.files ?? [])];
    if (files.length === 0) say("That is no file: save the picture first, then drop the file.", "error");
    take(files);
  });
  document.addEventListener("paste", (event) => take([...(event.clipboardData?.files ?? [])]));
  list(told);

  return {
    list,
    get current() {
      return current;
    },
  };
}

/** Asks about a picture; one that the program keeps no more is sent again. */
export async function askAbout(picture, name, body = {}) {
  try {
    return await ask(name, { ...body, picture: picture.id });
  } catch (error) {
    const file = uploads.get(picture.id);
    if (error.status !== 410 || !file) throw error;
    const { id } = await upload(file);
    const button = document.querySelector(`#pictures button[data-id="${picture.id}"]`);
    if (button) button.dataset.id = id;
    uploads.set(id, file);
    picture.id = id;
    return ask(name, { ...body, picture: id });
  }
}
