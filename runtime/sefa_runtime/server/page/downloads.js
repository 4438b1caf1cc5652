// Files of the image, and of sweeps.

import { editBody, fetchImage, postEdit } from "./api.js";
import { sweepRecipe } from "./recipes.js";

const MAX_SCALE = 32;
// Sides of files that are offered, and about that of a sweep unless another is chosen.
const MAX_SIDE = 2048;
const SWEEP_SIDE = 256;
const SUFFIXES = { jpeg: "jpg" };

const find = (selector) => document.querySelector(selector);

/** The forms that make files. */
export class Downloads {
  #drawing;
  #fail;
  #model = null;

  /**
   * @param {() => Drawing | null} drawing What is shown now.
   * @param {(error: Error | null) => void} fail Told what went wrong; null at a new attempt.
   */
  constructor(drawing, fail) {
    this.#drawing = drawing;
    this.#fail = fail;
    find("#image-form").addEventListener("submit", (event) => this.#submit(event, () => this.#saveImage()));
    find("#sweep-form").addEventListener("submit", (event) => this.#submit(event, () => this.#makeSweep()));
  }

  /**
   * Offer what a model can draw.
   * @param {number} count How many images stand side by side.
   */
  offer(model, count) {
    const others = model !== this.#model;
    this.#model = model;
    const [height, width] = [model.resolution[0], count * model.resolution[1]];
    const scales = [1, 2, 4, 8, 16, MAX_SCALE].filter((scale) => scale === 1 || scale * Math.max(height, width) <= MAX_SIDE);
    const options = () => scales.map((scale) => new Option(`${width * scale} × ${height * scale}`, scale));
    const usual = { image: 1, sweep: scales.find((scale) => scale * width >= SWEEP_SIDE) ?? scales.at(-1) };
    for (const [what, scale] of Object.entries(usual)) {
      const select = find(`#${what}-scale`);
      const chosen = Number(select.value);
      select.replaceChildren(...options());
      select.value = !others && scales.includes(chosen) ? chosen : scale;
    }
    find("#sweep-steps").max = Math.floor(model.max_pictures / count);
    if (others) this.#hideSweep();
  }

  /** Show the directions' names. */
  name(names) {
    const select = find("#sweep-direction");
    const chosen = select.value;
    select.replaceChildren(...names.map((name, index) => new Option(name, index)));
    select.value = names[chosen] === undefined ? 0 : chosen;
  }

  /** Whether there is something to save. */
  set enabled(enabled) {
    for (const button of document.querySelectorAll("#image-form button, #sweep-form button")) button.disabled = !enabled;
  }

  async #submit(event, work) {
    event.preventDefault();
    const { target } = event;
    if (target.getAttribute("aria-busy") === "true") return;
    const button = target.querySelector("button");
    const words = button.textContent;
    target.setAttribute("aria-busy", "true");
    button.textContent = "Drawing …";
    this.#fail(null);
    try {
      await work();
    } catch (error) {
      this.#fail(error);
    } finally {
      target.setAttribute("aria-busy", "false");
      button.textContent = words;
    }
  }

  async #saveImage() {
    const drawing = this.#drawing();
    const format = find("#image-format").value;
    const blob = await fetchImage(drawing, { format, scale: Number(find("#image-scale").value) });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = fileName(drawing, format);
    link.click();
    // The browser has taken it by then.
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  async #makeSweep() {
    const format = find("#sweep-format").value;
    const select = find("#sweep-direction");
    const direction = Number(select.value);
    const shown = this.#drawing();
    const drawing = { ...shown, edits: new Map([...shown.edits].filter(([index]) => index !== direction)) };
    const options = {
      sweep: { direction, steps: Number(find("#sweep-steps").value) },
      format,
      scale: Number(find("#sweep-scale").value),
    };
    if (format === "webp") options.animate = true;
    this.#hideSweep();
    const blob = await postEdit(drawing.model, editBody(drawing, options));

    const name = fileName(drawing, format, `-sweep-${direction}`);
    const image = find("#sweep");
    const moves = format !== "png";
    image.src = URL.createObjectURL(blob);
    image.alt = `A sweep along ${select.selectedOptions[0].text}`;
    image.hidden = moves && matchMedia("(prefers-reduced-motion: reduce)").matches;
    Object.assign(find("#sweep-download"), { href: image.src, download: name, textContent: `Download ${name}` });
    find("#sweep-size").textContent = sizeInWords(blob.size) + (image.hidden ? "; not played here: this device asks for less motion" : "");
    find("#sweep-curl").parentElement.hidden = drawing.code !== null;
    if (drawing.code === null) find("#sweep-curl").textContent = sweepRecipe(drawing, options, name);
    find("#sweep-result").hidden = false;
  }

  #hideSweep() {
    find("#sweep-result").hidden = true;
    URL.revokeObjectURL(find("#sweep").src);
  }
}

function fileName(drawing, format, what = "") {
  const word = /^[A-Za-z]\w*$/.test(drawing.labels?.text ?? "") ? `-${drawing.labels.text}` : "";
  const source = drawing.code === null ? `-seed-${drawing.seed}` : "";
  return `${drawing.model}${word}${source}${what}.${SUFFIXES[format] ?? format}`;
}

function sizeInWords(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
