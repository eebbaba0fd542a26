// Drawing on canvases.

/** The picture that a URL holds. */
export function load(url) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("the picture that was computed cannot be shown"));
    image.src = url;
  });
}

/** The bytes that base64 letters stand for. */
export function bytes(letters) {
  return Uint8Array.from(atob(letters), (letter) => letter.charCodeAt(0));
}

/** Gives `canvas` this size, and its clean drawing context. */
export function blank(canvas, width, height) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, width, height);
  context.imageSmoothingEnabled = false;
  return context;
}

// Six colours of matplotlib's viridis, from 0 to 1; others lie between them.
const SCALE = [[68, 1, 84], [65, 68, 135], [42, 120, 142], [34, 168, 132], [122, 209, 81], [253, 231, 37]];

/** The colour [r, g, b] of a share from 0 to 1. */
export function colour(share) {
  const at = Math.min(Math.max(share, 0), 1) * (SCALE.length - 1);
  const low = Math.min(Math.floor(at), SCALE.length - 2);
  return SCALE[low].map((value, i) => Math.round(value + (SCALE[low + 1][i] - value) * (at - low)));
}

/** A map of `height` × `width` values as a small canvas; `paint(index)` gives [r, g, b, a]. */
export function map(height, width, paint) {
  const small = document.createElement("canvas");
  Object.assign(small, { width, height });
  const context = small.getContext("2d");
  const pixels = context.createImageData(width, height);
  for (let index = 0; index < width * height; index++) pixels.data.set(paint(index), 4 * index);
  context.putImageData(pixels, 0, 0);
  return small;
}

/** Lines between patches. */
export function grid(context, rows, cols, style = "rgba(255,255,255,.45)") {
  const { width, height } = context.canvas;
  context.strokeStyle = style;
  context.lineWidth = 1;
  context.beginPath();
  for (let row = 1; row < rows; row++) {
    const y = Math.round((row * height) / rows) + 0.5;
    context.moveTo(0, y);
    context.lineTo(width, y);
  }
  for (let col = 1; col < cols; col++) {
    const x = Math.round((col * width) / cols) + 0.5;
    context.moveTo(x, 0);
    context.lineTo(x, height);
  }
  context.stroke();
}

/** Offers a file for download. */
export function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** Where an event happened on a canvas, as shares of its sides. */
export function place(event, canvas) {
  const box = canvas.getBoundingClientRect();
  const share = (value, low, side) => Math.min(Math.max((value - low) / side, 0), 1 - 1e-9);
  return { x: share(event.clientX, box.left, box.width), y: share(event.clientY, box.top, box.height) };
}

/** A name for a file that is made of `name`: without its folder and ending. */
export function stem(name) {
  return name.split(/[\\/]/).pop().replace(/\.[^.]*$/, "") || "picture";
}
