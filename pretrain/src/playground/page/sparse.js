// Why sparse: what becomes of the mask, layer by layer.

import { ask, Newest } from "./server.js";
import { blank, map } from "./draw.js";

const $ = (id) => document.getElementById(id);

export class Sparse {
  constructor(state) {
    this.state = state;
    this.networks = [];
    this.select = document.querySelector("#sparse select.model");
    this.newest = new Newest(async (question) => {
      const { networks } = await ask("leak", question);
      this.networks = networks;
      const chosen = $("network").value || "0";
      $("network").replaceChildren(...networks.map(({ title }, index) => new Option(title, index)));
      $("network").value = chosen;
      this.draw();
    });
    this.select.addEventListener("change", () => this.refresh());
    $("network").addEventListener("change", () => this.draw());
    $("layer").addEventListener("input", () => this.draw());
  }

  refresh() {
    this.newest.want({ model: Number(this.select.value), visible: this.state.mask.letters });
  }

  draw() {
    const { layers } = this.networks[Number($("network").value)] ?? { layers: [] };
    if (layers.length === 0) return;
    $("layer").max = layers.length - 1;
    const layer = layers[Math.min(Number($("layer").value), layers.length - 1)];
    $("layer-shown").textContent = layer.name;
    const kinds = [["dense", "Dense convolution"], ["sparse", "Sparse execution"]];
    for (const [kind, name] of kinds) {
      const { size: [height, width], active, share } = layer[kind];
      const small = map(height, width, (index) => (active[index] === "1" ? [240, 240, 240, 255] : [32, 34, 38, 255]));
      blank($(`${kind}-map`), width, height).drawImage(small, 0, 0);
      const title = document.createElement("b");
      title.textContent = name;
      $(`${kind}-caption`).replaceChildren(title, `: ${(100 * share).toFixed(1)} % of the positions depend on visible pixels`);
    }
  }
}
