// The image, and the original beside it or in its place.

import { ApiError, fetchImage } from "./api.js";
import { Latest } from "./latest.js";

// The server's quickest lossless format: its encoder is told to be quick.
const LOSSLESS = "webp";
// Beyond so many pixels a lossless image takes longer to encode than a slider should wait.
const LARGE = 256 * 256;

/** Draws what is wanted, follows what changes meanwhile. */
export class Stage {
  #element = document.querySelector("#stage");
  #editedImage = document.querySelector("#edited");
  #originalImage = document.querySelector("#original");
  #report;
  #edited;
  #original;
  #drawing = null;
  #originalShown = "";
  #painting = new Map(); // of either image
  #underWay = 0;
  #rough = false;
  #resolution = [1, 1];
  #held = false;
  #beside = false;

  /** @param {(error: Error | null) => void} report Told of every image: null if it came. */
  constructor(report) {
    this.#report = report;
    this.#edited = new Latest((wanted, signal) => this.#draw(this.#editedImage, wanted, signal));
    this.#original = new Latest((wanted, signal) => this.#draw(this.#originalImage, wanted, signal));
  }

  /** Whether what is shown is only a likeness, of a slider in motion. */
  get rough() {
    return this.#rough;
  }

  /** Height and width of each image that will be drawn. */
  set resolution([height, width]) {
    this.#resolution = [height, width];
    // Pixels of small images are what there is to see.
    this.#element.classList.toggle("tiny", Math.max(height, width) < 48);
  }

  /**
   * Show an image.
   * @param {Drawing | null} drawing Null: there is nothing to draw yet.
   * @param {boolean} moving Whether the next one will be wanted soon.
   */
  show(drawing, moving) {
    this.#drawing = drawing;
    this.#element.classList.toggle("blank", drawing === null);
    if (drawing === null) {
      this.#edited.drop();
      this.#original.drop();
      return;
    }
    const [height, width] = this.#resolution;
    const across = width * (drawing.labels?.each.length ?? 1);
    this.#element.style.setProperty("--ratio", `${across} / ${height}`);
    this.#element.parentElement.parentElement.classList.toggle("wide", across > 2 * height);
    this.#rough = moving && height * across > LARGE;
    this.#edited.want({ drawing, format: this.#rough ? "jpeg" : LOSSLESS });
    this.#showOriginal();
  }

  /** Forget the images: another model's come. */
  clear() {
    this.show(null, false);
    this.#originalShown = "";
    for (const image of [this.#editedImage, this.#originalImage]) {
      URL.revokeObjectURL(image.src);
      image.removeAttribute("src");
    }
  }

  /** Show the original in the image's place as long as it is held. */
  set held(held) {
    this.#held = held;
    this.#view();
  }

  /** Show the original beside the image. */
  set beside(beside) {
    this.#beside = beside;
    this.#view();
  }

  describe(edited, original) {
    this.#editedImage.alt = edited;
    this.#originalImage.alt = original;
  }

  #view() {
    this.#showOriginal();
    const ready = this.#originalShown !== "";
    this.#element.dataset.view = this.#held && ready ? "original" : this.#beside ? "both" : "edited";
  }

  #showOriginal() {
    if (!(this.#held || this.#beside) || this.#drawing === null) return;
    const drawing = { ...this.#drawing, edits: new Map() };
    const key = JSON.stringify(drawing);
    if (key !== this.#originalShown) this.#original.want({ drawing, format: LOSSLESS, key });
  }

  /** Get an image. It is put on the screen while the next one is already being asked for, but never out of turn. */
  async #draw(image, { drawing, format, key }, signal) {
    this.#underWay += 1;
    this.#element.setAttribute("aria-busy", "true");
    let blob;
    try {
      blob = await fetchImage(drawing, { format }, signal);
      await this.#painting.get(image);
    } catch (error) {
      this.#end(signal, error);
      return;
    }
    if (signal.aborted) this.#end(signal, null);
    else this.#painting.set(image, this.#paint(image, blob, key, signal));
  }

  async #paint(image, blob, key, signal) {
    try {
      await paint(image, blob);
    } catch (error) {
      this.#end(signal, error);
      return;
    }
    if (key !== undefined && !signal.aborted) {
      this.#originalShown = key;
      this.#view();
    }
    this.#end(signal, null);
  }

  #end(signal, error) {
    this.#underWay -= 1;
    if (this.#underWay === 0) this.#element.setAttribute("aria-busy", "false");
    if (!signal.aborted) this.#report(error);
  }
}

/** Put an image into an <img> element; the one before stays until it can be seen. */
async function paint(image, blob) {
  const before = image.src;
  image.src = URL.createObjectURL(blob);
  try {
    await image.decode();
  } catch {
    throw new ApiError("The server's image could not be read.", 200);
  } finally {
    if (before.startsWith("blob:")) URL.revokeObjectURL(before);
  }
}
