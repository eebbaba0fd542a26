// The page of `pretrain playground`: a picture and a mask, which three views look at.

import { about, onRestart, say } from "./server.js";
import { askAbout, setUp } from "./pictures.js";
import { load } from "./draw.js";
import { Mask } from "./mask.js";
import { Reconstruct } from "./reconstruct.js";
import { Features } from "./features.js";
import { Sparse } from "./sparse.js";

const $ = (id) => document.getElementById(id);

async function start() {
  const told = await about();
  const app = told.app;
  const names = app.models.map(({ name, model }) => `${name} (${model})`);
  $("models").textContent = `${names.join(" and ")}, ${app.size[1]}×${app.size[0]} pixels, ${app.grid[1]}×${app.grid[0]} patches`;
  for (const select of document.querySelectorAll("select.model")) {
    select.replaceChildren(...names.map((name, index) => new Option(name, index)));
    select.closest("label").hidden = names.length < 2;
  }

  const state = { app, picture: null, image: null, mask: new Mask(app) };
  const views = {
    reconstruct: new Reconstruct(state),
    features: new Features(state),
    sparse: new Sparse(state),
  };
  let open = "reconstruct";
  const refresh = () => views[open].refresh();

  state.mask.changed = refresh;
  await state.mask.draw();

  async function choose(picture) {
    say("");
    try {
      const { picture: url, remark } = await askAbout(picture, "view");
      const image = await load(url);
      if (pictures && pictures.current !== picture) return;
      Object.assign(state, { picture, image });
      $("size").textContent = `${app.size[1]}×${app.size[0]} pixels${remark ? `, ${remark}` : ""}`;
      refresh();
    } catch (error) {
      say(error.message, "error");
    }
  }

  setUpTabs((name) => {
    open = name;
    refresh();
  });
  if (told.pictures.length > 0) say("");
  let pictures = null;
  pictures = setUp(told, choose);
  onRestart((news) => pictures.list(news));
}

/** One view is open at a time; arrow keys go from tab to tab. */
function setUpTabs(opened) {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const open = (tab) => {
    for (const other of tabs) {
      const chosen = other === tab;
      other.setAttribute("aria-selected", chosen);
      other.tabIndex = chosen ? 0 : -1;
      $(other.getAttribute("aria-controls")).hidden = !chosen;
    }
    history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
    opened(tab.getAttribute("aria-controls"));
  };
  tabs.forEach((tab, index) => {
    tab.addEventListener("click", () => open(tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(index + step + tabs.length) % tabs.length];
      next.focus();
      open(next);
    });
  });
  // A link may name a view.
  const named = tabs.find((tab) => `#${tab.getAttribute("aria-controls")}` === location.hash);
  if (named) open(named);
}

start().catch((error) => say(error.message, "error"));
