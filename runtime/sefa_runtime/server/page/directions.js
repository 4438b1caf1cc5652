// The list of directions: a slider, its exact value, reset, lock and name for each.

import { tidy } from "./state.js";

// About this many steps on a slider.
const STEPS = 120;

/** 1, 2 or 5 times a power of ten, at least `span` / STEPS. */
function stepOf(span) {
  const power = 10 ** Math.floor(Math.log10(span / STEPS));
  return [1, 2, 5, 10].map((factor) => tidy(factor * power) || factor * power).find((step) => span / step <= STEPS * 1.0001);
}

/** One direction's row. */
class Row {
  #step;
  #low;
  #high;
  #handlers;
  #names;

  constructor(direction, names, handlers) {
    this.index = direction.index;
    this.#names = names;
    this.#handlers = handlers;
    const template = document.querySelector("#direction-template");
    this.element = template.content.firstElementChild.cloneNode(true);
    const find = (selector) => this.element.querySelector(selector);
    this.label = find(".name");
    this.slider = find(".slider");
    this.exact = find(".exact");
    this.resetButton = find(".reset");
    this.lockButton = find(".lock");
    this.renameButton = find(".rename");
    this.newName = find(".new-name");
    this.problem = find(".name-problem");

    this.slider.id = `alpha-${this.index}`;
    this.label.htmlFor = this.slider.id;
    this.problem.id = `name-problem-${this.index}`;
    this.newName.setAttribute("aria-describedby", this.problem.id);
    this.#scale(direction.alpha_range);
    this.#listen();
    this.showName();
  }

  /** Least and greatest alpha that are suggested. */
  get range() {
    return [this.#low, this.#high];
  }

  get step() {
    return this.#step;
  }

  showName() {
    const name = this.#names.get(this.index);
    const known = this.#names.own.has(this.index);
    this.label.textContent = name;
    this.label.title = known ? `Direction ${this.index}, named by you` : `Direction ${this.index}`;
    this.exact.setAttribute("aria-label", `${name}, exact`);
    for (const [button, verb] of [[this.resetButton, "Reset"], [this.lockButton, "Lock"], [this.renameButton, "Rename"]]) {
      button.setAttribute("aria-label", `${verb} ${name}`);
      button.title = verb;
    }
    this.newName.setAttribute("aria-label", `New name of ${name}`);
  }

  show(alpha, locked) {
    const { slider } = this;
    // What is being typed is left as it is.
    if (Number(slider.value) !== alpha) slider.value = alpha;
    if (document.activeElement !== this.exact || this.exact.value === "") this.exact.value = alpha;
    const share = (value) => (100 * (Math.min(Math.max(value, slider.min), slider.max) - slider.min)) / (slider.max - slider.min);
    const [from, to] = [share(0), share(alpha)].sort((a, b) => a - b);
    slider.style.setProperty("--from", `${from}%`);
    slider.style.setProperty("--to", `${to}%`);
    this.element.classList.toggle("moved", alpha !== 0);
    this.resetButton.disabled = alpha === 0;
    this.lockButton.setAttribute("aria-pressed", String(locked));
  }

  #scale([low, high]) {
    const least = Math.min(low, 0);
    const most = Math.max(high, 0);
    this.#step = stepOf(most - least || 1);
    // 0 is on the grid, and the ends do not go beyond what is suggested.
    this.#low = tidy(Math.ceil(least / this.#step - 1e-6) * this.#step);
    this.#high = tidy(Math.floor(most / this.#step + 1e-6) * this.#step);
    Object.assign(this.slider, { min: this.#low, max: this.#high, step: this.#step });
  }

  #listen() {
    const { slider, exact, newName } = this;
    const told = (input) => this.#handlers.move(this.index, tidy(Number(input.value)));
    slider.addEventListener("input", () => told(slider));
    exact.addEventListener("input", () => {
      if (exact.value !== "" && Math.abs(Number(exact.value)) <= 1e6) told(exact);
    });
    exact.addEventListener("blur", () => this.#handlers.shown());
    for (const input of [slider, this.resetButton, this.lockButton]) {
      input.addEventListener("keydown", (event) => {
        if (event.key === "Delete" || event.key === "Backspace") {
          event.preventDefault();
          this.#handlers.move(this.index, 0);
        }
      });
    }
    this.resetButton.addEventListener("click", () => {
      this.#handlers.move(this.index, 0);
      // A button that is disabled loses the focus.
      slider.focus();
    });
    this.lockButton.addEventListener("click", () => this.#handlers.lock(this.index));
    this.renameButton.addEventListener("click", () => this.#startNaming());
    newName.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== "Escape") return;
      // Else the key would also press the button that gets the focus.
      event.preventDefault();
      this.#endNaming(event.key === "Enter", true);
    });
    newName.addEventListener("blur", () => this.#endNaming(true, false));
  }

  #startNaming() {
    this.newName.value = this.#names.get(this.index);
    this.#showNaming(true);
    this.newName.select();
    this.newName.focus();
  }

  /** @param {boolean} keep Whether to take the name. @param {boolean} byKey Whether the focus goes back. */
  #endNaming(keep, byKey) {
    if (this.newName.hidden) return;
    const name = this.newName.value.trim();
    const problem = keep ? this.#names.problem(this.index, name) : "";
    if (problem && byKey) {
      this.problem.textContent = problem;
      this.problem.hidden = false;
      this.newName.setAttribute("aria-invalid", "true");
      return;
    }
    const changed = keep && !problem && name !== this.#names.get(this.index);
    if (changed) this.#names.set(this.index, name);
    this.showName();
    this.#showNaming(false);
    if (byKey) this.renameButton.focus();
    if (changed) this.#handlers.named(this.index);
  }

  #showNaming(naming) {
    this.newName.hidden = !naming;
    this.label.hidden = naming;
    this.problem.hidden = true;
    this.newName.removeAttribute("aria-invalid");
  }
}

/**
 * Fill a list with a row for each direction.
 * @param {HTMLElement} list
 * @param {object[]} directions As the server describes them.
 * @param {Names} names
 * @param {{move: Function, lock: Function, named: Function, shown: Function}} handlers Called with an index: `move` with
 *   the alpha too; `shown` when a value may be written anew.
 * @returns {Row[]} By index.
 */
export function fillDirections(list, directions, names, handlers) {
  const rows = directions.map((direction) => new Row(direction, names, handlers));
  list.replaceChildren(...rows.map((row) => row.element));
  return rows;
}
