// The page as a whole: what is chosen, and what follows from it.

import { ApiError, describeModel, hasToken, listModels, saveToken } from "./api.js";
import { readCodes } from "./codes.js";
import { fillDirections } from "./directions.js";
import { Downloads } from "./downloads.js";
import { Names } from "./names.js";
import { curlRecipe, nameRecipe, pythonRecipe, sefaRecipe } from "./recipes.js";
import { Stage } from "./stage.js";
import { areLetters, findDirection, listed, MAX_SEED, readFragment, readLabels, tidy, writeFragment, writeLabels } from "./state.js";

// After so long without a change, the address and the recipes follow.
const SETTLED_MS = 200;
// Seeds of few digits, for short links.
const RANDOM_SEEDS = 1_000_000;
// More at once, and little is left of the image.
const RANDOM_EDITS = 3;
// Between attempts to reach a server that does not answer.
const FIRST_RETRY_S = 1;
const LAST_RETRY_S = 8;
const MANY_DIRECTIONS = 24;
const LETTER_KEYS = "sefa.letter-keys";

const find = (selector) => document.querySelector(selector);

/** The model that is shown, and what is chosen of it. */
const chosen = {
  model: null, // as the server describes it
  names: null,
  rows: [],
  seed: 0,
  codes: null, // { file, list, number }: of a model of w or w+
  labels: [0], // indices of the classes that stand side by side
  truncation: 1,
  edits: new Map(),
  locked: new Set(),
};

const stage = new Stage(report);
const downloads = new Downloads(drawing, (error) => (error ? report(error, false) : hideNotice()));
const timers = { settle: 0, retry: 0 };
let retryS = FIRST_RETRY_S;
let again = start;
let opening = "";

/** What is to be drawn; null as long as a code is missing. */
function drawing() {
  const { model, codes } = chosen;
  if (model === null || (model.latent !== "z" && codes === null)) return null;
  return {
    model: model.name,
    seed: chosen.seed,
    code: codes && { input: model.latent_input, values: codes.list[codes.number] },
    labels: model.takes_label ? writeLabels(model, chosen.labels) : null,
    truncation: model.truncation === null ? chosen.truncation : null,
    edits: new Map([...chosen.edits].sort(([a], [b]) => a - b)),
  };
}

// --- What was changed ---

/** Draw and show what is chosen now. @param {boolean} moving Whether a slider is in motion. */
function changed(moving = false) {
  stage.show(drawing(), moving);
  showValues();
  settleSoon();
}

function settleSoon() {
  clearTimeout(timers.settle);
  timers.settle = setTimeout(settle, SETTLED_MS);
}

/** A change that the browser's Back takes back. */
function step(change, words) {
  settle();
  change();
  history.pushState(null, "", fragment());
  hideRemark();
  changed();
  announce(words);
}

/** Let the address and the recipes follow. */
function settle() {
  clearTimeout(timers.settle);
  if (chosen.model === null) return;
  if (fragment() !== location.hash) {
    history.replaceState(null, "", fragment());
    hideRemark();
  }
  showRecipes();
  if (stage.rough) stage.show(drawing(), false);
}

function fragment() {
  const { model } = chosen;
  // A model that waits for a code has a link too, of its edits.
  const shown = drawing() ?? {
    model: model.name,
    code: {},
    labels: null,
    truncation: model.truncation === null ? chosen.truncation : null,
    edits: chosen.edits,
  };
  return writeFragment(shown, chosen.locked);
}

function move(index, alpha) {
  if (alpha === 0) chosen.edits.delete(index);
  else chosen.edits.set(index, alpha);
  // As `changed`, but for one row alone: there may be hundreds.
  stage.show(drawing(), true);
  chosen.rows[index].show(alpha, chosen.locked.has(index));
  settleSoon();
}

function toggleLock(index) {
  if (!chosen.locked.delete(index)) chosen.locked.add(index);
  changed();
}

function named(index) {
  showNames();
  announce(`Direction ${index} is called ${chosen.names.get(index)} here.`);
}

function randomSeed() {
  if (chosen.model?.latent !== "z") return;
  const seed = Math.floor(Math.random() * RANDOM_SEEDS);
  step(() => (chosen.seed = seed), `Seed ${seed}`);
}

/** Move a few directions that are not locked, within their suggested ranges, and reset the others. */
function randomEdits() {
  if (chosen.model === null) return;
  const kept = new Map([...chosen.edits].filter(([index]) => chosen.locked.has(index)));
  const free = chosen.rows.filter((row) => !chosen.locked.has(row.index));
  const count = Math.max(0, Math.min(RANDOM_EDITS, chosen.model.max_edits - kept.size));
  for (const row of shuffled(free).slice(0, count)) {
    const [low, high] = row.range;
    const alpha = tidy(Math.round((low + Math.random() * (high - low)) / row.step) * row.step);
    if (alpha !== 0) kept.set(row.index, alpha);
  }
  step(() => (chosen.edits = kept), "Random edits");
}

function resetAll() {
  if (chosen.model === null) return;
  const kept = new Map([...chosen.edits].filter(([index]) => chosen.locked.has(index)));
  step(() => (chosen.edits = kept), kept.size ? "All reset but what is locked" : "All reset");
}

function shuffled(items) {
  const mixed = [...items];
  for (let last = mixed.length - 1; last > 0; last -= 1) {
    const other = Math.floor(Math.random() * (last + 1));
    [mixed[last], mixed[other]] = [mixed[other], mixed[last]];
  }
  return mixed;
}

// --- What is shown ---

function showValues() {
  const { model } = chosen;
  for (const row of chosen.rows) row.show(chosen.edits.get(row.index) ?? 0, chosen.locked.has(row.index));
  showNumber(find("#seed"), chosen.seed);
  if (model.takes_label) {
    showNumber(find("#labels"), writeLabels(model, chosen.labels).text);
    if (document.activeElement !== find("#labels")) showLabelProblem("");
  }
  if (model.truncation === null) {
    find("#truncation").value = chosen.truncation;
    showNumber(find("#truncation-number"), chosen.truncation);
  }
  const drawable = drawing() !== null;
  find("#no-image").hidden = drawable;
  downloads.enabled = drawable;
  for (const button of ["#hold", "#side-by-side"]) find(button).disabled = !drawable;
}

/** Write a number, or classes, where none are being typed. */
function showNumber(input, value) {
  if (document.activeElement === input && input.value !== "") return;
  input.value = value;
  valid(input, true);
}

function showRecipes() {
  const shown = drawing();
  const { codes, names } = chosen;
  const reproducible = codes === null || /\.np[yz]$/i.test(codes.file);
  find("#curl-recipe").hidden = codes !== null;
  find("#python-recipe").hidden = !reproducible;
  find("#sefa-recipe").hidden = find("#python-recipe").hidden || (codes !== null && codes.list.length > 1);
  find("#no-recipe").hidden = reproducible;
  find("#recipes").hidden = shown === null;
  if (shown === null) return;
  if (codes === null) find("#curl").textContent = curlRecipe(shown);
  if (reproducible) {
    find("#python").textContent = pythonRecipe(shown, codes?.file ?? null, codes?.number ?? 0);
    find("#sefa-command").textContent = sefaRecipe(shown, codes?.file ?? null);
  }
  const { labels } = shown;
  const classes = labels === null ? "" : `, ${labels.each.length === 1 ? "class" : "classes"} ${labels.text}`;
  const source = (codes === null ? `Seed ${shown.seed}` : `Code ${codes.number + 1} of ${codes.file}`) + classes;
  const edits = [...shown.edits].map(([index, alpha]) => `${names.get(index)} ${alpha}`);
  stage.describe([source, ...edits].join(", "), `${source}, unedited`);
}

function showNames() {
  const { model, names } = chosen;
  downloads.name(model.directions.map((direction) => names.get(direction.index)));
  find("#renamed").hidden = names.own.size === 0;
  find("#name-command").textContent = nameRecipe(model.name, names.own);
  showRecipes();
}

function showModel() {
  const { model } = chosen;
  const [height, width] = model.resolution;
  document.title = `${model.name} – sefa`;
  const sealed = model.sealed && `; changed by another tool: ${model.sealed}`;
  find("#facts").textContent = `${model.family}, ${width} × ${height}, on ${model.provider}${sealed}`;
  find("#card").hidden = !model.license && !model.note;
  find("#card").open = false;
  find("#license").textContent = model.license && `Licence: ${model.license}.`;
  find("#note").textContent = model.note;
  stage.resolution = model.resolution;
  find("#seed-choice").hidden = model.latent !== "z";
  find("#code-choice").hidden = model.latent === "z";
  find("#code-explanation").textContent =
    `This model draws from codes of ${model.latent}, ${model.latent_shape.join(" × ")} numbers each, not from seeds: ` +
    "open the file that a projector or encoder wrote for a photograph. It is read here, and the link to an image does not hold it.";
  find("#code-file").value = "";
  find("#code-number-field").hidden = true;
  find("#no-image").textContent = "Open a file with a code to see its image.";
  showClasses();
  find("#truncation-field").hidden = model.truncation !== null;
  find("#find-field").hidden = model.directions.length <= MANY_DIRECTIONS;
  find("#find").value = "";
  downloads.offer(model, 1);
}

function showClasses() {
  const { class_names: names, num_classes: count, takes_label: taken } = chosen.model;
  const letters = areLetters(names);
  find("#labels-field").hidden = !taken;
  find("#labels-field label").textContent = names.length ? "Classes" : `Classes, 0 to ${count - 1}`;
  const one = names.length ? `One of ${listed(names)}` : "One";
  find("#labels-hint").textContent = letters
    ? `${one}; or a word, to see its letters side by side.`
    : `${one}; or several, side by side, with commas between them.`;
  find("#class-names").replaceChildren(...(letters ? [] : names.map((name) => new Option(name))));
}

/** @param {string} problem Empty: there is none. */
function showLabelProblem(problem) {
  find("#labels-problem").textContent = problem;
  find("#labels-problem").hidden = !problem;
  find("#labels-hint").hidden = problem !== "";
}

function setLabels(labels) {
  chosen.labels = labels;
  downloads.offer(chosen.model, labels.length);
  changed();
}

// --- Where it comes from ---

/** Ask the server what there is, and show what the address names. */
async function start() {
  const wanted = readFragment(location.hash).model;
  try {
    const models = await listModels();
    if (!models.length) throw new ApiError("The server has no models.", 200);
    const select = find("#model");
    select.replaceChildren(
      ...models.map(({ name, state }) => new Option(state === "ready" ? name : `${name} (${state})`, name)),
    );
        const known = models.find((model) => model.name === wanted);
    const first = models.find((model) => model.ready) ?? models[0];
    if (wanted !== null && !known) report(new ApiError(`This server has no model ${wanted}.`, 200), false);
    select.value = (known ?? first).name;
    await open(select.value, wanted === null || known !== undefined);
  } catch (error) {
    again = start;
    report(error);
  }
}

/** Show a model. @param {boolean} ownFragment Whether the address speaks of it. */
async function open(name, ownFragment) {
  opening = name;
  again = () => open(name, ownFragment);
  try {
    const model = await describeModel(name);
    if (opening !== name) return;
    stage.clear();
    Object.assign(chosen, { model, codes: null, edits: new Map(), locked: new Set() });
    chosen.names = new Names(name, model.directions);
    showModel();
    chosen.rows = fillDirections(find("#directions"), model.directions, chosen.names, {
      move,
      lock: toggleLock,
      named,
      shown: showValues,
    });
    again = () => changed();
    showNames();
    apply(ownFragment ? location.hash : "");
  } catch (error) {
    report(error);
  }
}

/** Choose what a fragment says. */
function apply(hash) {
  const { model } = chosen;
  const parts = readFragment(hash);
  const unread = [...parts.unread];
  const indices = (texts) =>
    texts.flatMap((text) => {
      const index = findDirection(model.directions, text);
      if (index < 0) unread.push(text);
      return index < 0 ? [] : [index];
    });
  chosen.seed = parts.seed ?? 0;
  chosen.labels = [0];
  if (parts.labels !== null) {
    try {
      if (!model.takes_label) throw new Error("It takes none.");
      chosen.labels = readLabels(model, parts.labels);
    } catch {
      unread.push(`label=${parts.labels}`);
    }
  }
  downloads.offer(model, chosen.labels.length);
  chosen.truncation = parts.truncation ?? 1;
  chosen.locked = new Set(indices(parts.locked));
  chosen.edits = new Map();
  for (const [text, alpha] of parts.edits) {
    for (const index of indices([text])) if (alpha !== 0) chosen.edits.set(index, alpha);
  }
  changed();
  settle();
  if (unread.length) report(new ApiError(`Parts of the link say nothing to this model: ${unread.join(", ")}.`, 200), false);
}

// --- When something is wrong ---

/**
 * Say what went wrong, or that it is over.
 * @param {Error | null} error
 * @param {boolean} retries Whether to try again by itself, if that may help.
 */
function report(error, retries = true) {
  clearTimeout(timers.retry);
  if (error === null) {
    if (find("#notice").dataset.passing === "true") hideNotice();
    retryS = FIRST_RETRY_S;
    return;
  }
  if (!(error instanceof ApiError)) {
    console.error(error);
    showNotice("The page itself failed; its console says how.", false);
    return;
  }
  if (error.status === 401) {
    askForToken();
    return;
  }
  const passing = retries && error.passing;
  showNotice(passing ? `${error.message} Trying again …` : error.message, retries);
  find("#notice").dataset.passing = String(retries);
  if (passing) {
    timers.retry = setTimeout(() => again(), 1000 * Math.max(retryS, error.retryAfterS ?? 0));
    retryS = Math.min(2 * retryS, LAST_RETRY_S);
  }
}

function showNotice(message, offersRetry) {
  find("#message").textContent = message;
  announce(message);
  find("#retry").hidden = !offersRetry;
  find("#notice").hidden = false;
  find("#stage").classList.toggle("stale", offersRetry);
}

function hideNotice() {
  find("#notice").hidden = true;
  find("#stage").classList.remove("stale");
}

/** Hide what was said of something that has changed since. */
function hideRemark() {
  if (find("#notice").dataset.passing === "false") hideNotice();
}

function askForToken() {
  const dialog = find("#token-dialog");
  const field = find("#token");
  find("#token-problem").textContent = hasToken() ? "The server did not take that token." : "";
  field.value = "";
  showNotice("The server asks for a token.", true);
  find("#notice").dataset.passing = "true";
  if (!dialog.open) dialog.showModal();
  field.focus();
}

// --- Small things ---

function announce(words) {
  find("#announcement").textContent = words;
}

async function copy(text, button) {
  const worked = await copied(text);
  const before = button.textContent;
  if (before === "Copied") return;
  button.textContent = worked ? "Copied" : "Not copied";
  announce(button.textContent);
  setTimeout(() => (button.textContent = before), 1500);
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Pages that came over plain HTTP from another machine may not use the clipboard so.
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    const worked = document.execCommand("copy");
    field.remove();
    return worked;
  }
}

function valid(input, is) {
  if (is) input.removeAttribute("aria-invalid");
  else input.setAttribute("aria-invalid", "true");
  return is;
}

/** Take a number that is typed, as long as it is one that can be taken. */
function onNumber(selector, fits, take, moving = false) {
  const input = find(selector);
  input.addEventListener("input", () => {
    const number = Number(input.value);
    if (!valid(input, input.value !== "" && fits(number))) return;
    take(number);
    changed(moving);
  });
  input.addEventListener("blur", () => chosen.model && showValues());
}

// --- Listening ---

find("#model").addEventListener("change", (event) => {
  settle();
  const name = event.target.value;
  history.pushState(null, "", `#${new URLSearchParams({ model: name, seed: chosen.seed })}`);
  open(name, true);
});
addEventListener("hashchange", () => {
  const wanted = readFragment(location.hash).model;
  clearTimeout(timers.settle);
  if (chosen.model === null || (wanted !== null && wanted !== chosen.model.name)) start();
  else apply(location.hash);
});
addEventListener("pagehide", settle);

onNumber("#seed", (seed) => Number.isInteger(seed) && seed >= 0 && seed <= MAX_SEED, (seed) => (chosen.seed = seed));
onNumber("#truncation", () => true, (psi) => (chosen.truncation = psi), true);
onNumber("#truncation-number", (psi) => Math.abs(psi) <= 100, (psi) => (chosen.truncation = psi));
onNumber(
  "#code-number",
  (number) => chosen.codes !== null && Number.isInteger(number) && number >= 1 && number <= chosen.codes.list.length,
  (number) => (chosen.codes.number = number - 1),
);
find("#labels").addEventListener("input", (event) => {
  try {
    const labels = readLabels(chosen.model, event.target.value);
    valid(event.target, true);
    showLabelProblem("");
    setLabels(labels);
  } catch (error) {
    valid(event.target, false);
    showLabelProblem(error.message);
  }
});
find("#labels").addEventListener("keydown", (event) => {
  const by = { ArrowUp: 1, ArrowDown: -1 }[event.key];
  const { model, labels } = chosen;
  // A list of suggestions has these keys for itself.
  if (by === undefined || labels.length > 1 || find("#class-names").children.length) return;
  event.preventDefault();
  const label = (labels[0] + by + model.num_classes) % model.num_classes;
  event.target.value = writeLabels(model, [label]).text;
  event.target.dispatchEvent(new Event("input"));
});
find("#labels").addEventListener("blur", () => chosen.model && showValues());
find("#code-file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  if (file === undefined) return;
  const { model } = chosen;
  try {
    const list = await readCodes(file, model.latent_shape);
    if (chosen.model !== model) return;
    chosen.codes = { file: file.name, list, number: 0 };
    find("#code-number-field").hidden = list.length === 1;
    find("#code-number-field label").textContent = `Code, 1 to ${list.length}`;
    Object.assign(find("#code-number"), { max: list.length, value: 1 });
    hideNotice();
    changed();
  } catch (error) {
    report(new ApiError(`${file.name}: ${error instanceof RangeError ? "The file is damaged." : error.message}`, 200), false);
  }
});

find("#random-seed").addEventListener("click", randomSeed);
find("#random-edits").addEventListener("click", randomEdits);
find("#reset-all").addEventListener("click", resetAll);
find("#copy-link").addEventListener("click", (event) => {
  settle();
  copy(location.href, event.currentTarget);
});
for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", () => {
    settle();
    copy(find(`#${button.dataset.copies}`).textContent, button);
  });
}
find("#find").addEventListener("input", (event) => {
  const text = event.target.value.trim().toLowerCase();
  for (const row of chosen.rows) {
    row.element.hidden = !(chosen.names.get(row.index).toLowerCase().includes(text) || String(row.index) === text);
  }
});

const hold = find("#hold");
function setHeld(held) {
  if (held && hold.disabled) return;
  stage.held = held;
  hold.setAttribute("aria-pressed", String(held));
}
hold.addEventListener("pointerdown", (event) => {
  hold.setPointerCapture(event.pointerId);
  setHeld(true);
});
for (const end of ["pointerup", "pointercancel", "lostpointercapture", "blur"]) hold.addEventListener(end, () => setHeld(false));
hold.addEventListener("contextmenu", (event) => event.preventDefault());
hold.addEventListener("keydown", (event) => {
  if (event.key === " " || event.key === "Enter") setHeld(true);
});
hold.addEventListener("keyup", () => setHeld(false));

function toggleBeside() {
  const button = find("#side-by-side");
  if (button.disabled) return;
  const beside = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(beside));
  stage.beside = beside;
}
find("#side-by-side").addEventListener("click", toggleBeside);

const LETTERS = { n: randomSeed, e: randomEdits, x: resetAll, b: toggleBeside, o: () => setHeld(true) };
const letterKeys = find("#letter-keys");
letterKeys.checked = localStorage.getItem(LETTER_KEYS) !== "off";
letterKeys.addEventListener("change", () => localStorage.setItem(LETTER_KEYS, letterKeys.checked ? "on" : "off"));
addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input:not([type=range], [type=checkbox]), select, textarea, dialog");
  if (!letterKeys.checked || typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  LETTERS[event.key.toLowerCase()]?.();
});
addEventListener("keyup", (event) => {
  if (event.key.toLowerCase() === "o") setHeld(false);
});

find("#retry").addEventListener("click", () => {
  clearTimeout(timers.retry);
  again();
});
find("#token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  saveToken(find("#token").value.trim());
  find("#token-dialog").close();
  again();
});

start();
