// What the page shows, and how that stands in the address behind the #.

export const MAX_SEED = 2 ** 32 - 1;

/**
 * What one image is rendered from: all that a request needs.
 * @typedef {object} Drawing
 * @property {string} model
 * @property {number} seed
 * @property {{input: string, values: number[] | number[][]} | null} code Instead of the seed, of models of w and w+.
 * @property {Labels | null} labels Null: the model takes none.
 * @property {number | null} truncation
 * @property {Map<number, number>} edits Alphas by a direction's index, none of them 0.
 */

/**
 * The classes that stand side by side in an image; usually one.
 * @typedef {object} Labels
 * @property {string} text As the server reads it: "SeFa".
 * @property {(string | number)[]} each Their names; or their indices, if they have none.
 */

/** A number as short as it can be told from its neighbours on a slider. */
export function tidy(number) {
  return Number(number.toFixed(4));
}

/**
 * Read what stands behind the #, in the words of the server's own addresses: seed=7&edit=1:2.5&lock=1.
 * @returns Its parts, edits and locks still by name or index; `unread` are those that say nothing.
 */
export function readFragment(hash) {
  const parts = { model: null, seed: null, labels: null, truncation: null, edits: [], locked: [], unread: [] };
  for (const [key, value] of new URLSearchParams(hash.replace(/^#/, ""))) {
    const number = value.trim() === "" ? NaN : Number(value);
    const whole = Number.isInteger(number) && number >= 0;
    if (key === "model") parts.model = value;
    else if (key === "seed" && whole && number <= MAX_SEED) parts.seed = number;
    else if (key === "label" || key === "labels") parts.labels = value;
    else if (key === "truncation" && Number.isFinite(number)) parts.truncation = number;
    else if (key === "lock") parts.locked.push(...value.split(","));
    else if (key === "edit" && value.includes(":")) {
      const colon = value.lastIndexOf(":");
      const alpha = value.slice(colon + 1).trim() === "" ? NaN : Number(value.slice(colon + 1));
      if (Math.abs(alpha) <= 1e6) parts.edits.push([value.slice(0, colon), alpha]);
      else parts.unread.push(`${key}=${value}`);
    } else parts.unread.push(`${key}=${value}`);
  }
  return parts;
}

/** What `readFragment` reads: of a Drawing and the locked directions. */
export function writeFragment(drawing, locked) {
  const query = new URLSearchParams({ model: drawing.model });
  if (drawing.code === null) query.set("seed", drawing.seed);
  if (drawing.labels !== null) query.set(labelKey(drawing.labels), drawing.labels.text);
  if (drawing.truncation !== null) query.set("truncation", drawing.truncation);
  for (const [index, alpha] of drawing.edits) query.append("edit", `${index}:${alpha}`);
  if (locked.size) query.set("lock", [...locked].join(","));
  return `#${query.toString().replaceAll("%3A", ":").replaceAll("%2C", ",")}`;
}

/** The parameter, option and field of one class, or of several. */
export function labelKey(labels) {
  return labels.each.length === 1 ? "label" : "labels";
}

/**
 * The indices of the classes that a text stands for, as the server reads it: between commas, a name, or else a word each
 * of whose characters is a name, or else an index or a range of them.
 * @throws {Error} With a sentence for the user.
 */
export function readLabels(model, text) {
  const { class_names: names, num_classes: count, max_pictures: most } = model;
  const there = names.length ? listed(names) : `0 to ${count - 1}`;
  const labels = [];
  for (const part of text.split(",").map((part) => part.trim())) {
    const letters = [...part];
    const [, first, last = first] = /^(\d{1,9})(?:-(\d{1,9}))?$/.exec(part) ?? [];
    if (names.includes(part)) labels.push(names.indexOf(part));
    else if (letters.length && letters.every((letter) => names.includes(letter))) {
      labels.push(...letters.map((letter) => names.indexOf(letter)));
    } else if (first !== undefined && Number(first) <= Number(last) && Number(last) < count) {
      for (let index = Number(first); index <= last && labels.length <= most; index += 1) labels.push(index);
    } else throw new Error(part ? `There is no class ${part}; there are ${there}.` : `A class is missing; there are ${there}.`);
  }
  if (labels.length > most) throw new Error(`At most ${most} classes at once.`);
  return labels;
}

/** What `readLabels` reads: of indices. */
export function writeLabels(model, labels) {
  const { class_names: names } = model;
  if (!names.length) return { text: labels.join(","), each: labels };
  const each = labels.map((label) => names[label]);
  const word = each.join("");
  const isWord = each.length > 1 && areLetters(each) && !names.includes(word);
  return { text: isWord ? word : each.join(","), each };
}

/** Names of classes, in few words: A to Z, 0 to 9; or the first ones. */
export function listed(names) {
  const runs = [];
  for (const name of names) {
    const { last } = runs.at(-1) ?? {};
    const follows = areLetters([last ?? "", name]) && name.codePointAt(0) === last.codePointAt(0) + 1;
    if (follows) runs.at(-1).last = name;
    else runs.push({ first: name, last: name });
  }
  const words = runs.map(({ first, last }) => (first === last ? first : `${first} to ${last}`));
  return words.slice(0, 6).join(", ") + (words.length > 6 ? " and more" : "");
}

/** Whether all names have one character. */
export function areLetters(names) {
  return names.length > 0 && names.every((name) => [...name].length === 1);
}

/** The index of a direction given by the server's name for it, or by its index; -1 if there is none. */
export function findDirection(directions, text) {
  const named = directions.findIndex((direction) => direction.name === text);
  if (named >= 0) return named;
  return /^\d{1,9}$/.test(text) && Number(text) < directions.length ? Number(text) : -1;
}
