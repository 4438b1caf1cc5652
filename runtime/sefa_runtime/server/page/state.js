// What the page shows, and how that stands in the address behind the #.

export const MAX_SEED = 2 ** 32 - 1;

/**
 * What one image is rendered from: all that a request needs.
 * @typedef {object} Drawing
 * @property {string} model
 * @property {number} seed
 * @property {{input: string, values: number[] | number[][]} | null} code Instead of the seed, of models of w and w+.
 * @property {number | null} label
 * @property {number | null} truncation
 * @property {Map<number, number>} edits Alphas by a direction's index, none of them 0.
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
  const parts = { model: null, seed: null, label: null, truncation: null, edits: [], locked: [], unread: [] };
  for (const [key, value] of new URLSearchParams(hash.replace(/^#/, ""))) {
    const number = value.trim() === "" ? NaN : Number(value);
    const whole = Number.isInteger(number) && number >= 0;
    if (key === "model") parts.model = value;
    else if (key === "seed" && whole && number <= MAX_SEED) parts.seed = number;
    else if (key === "label" && whole) parts.label = number;
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
  if (drawing.label !== null) query.set("label", drawing.label);
  if (drawing.truncation !== null) query.set("truncation", drawing.truncation);
  for (const [index, alpha] of drawing.edits) query.append("edit", `${index}:${alpha}`);
  if (locked.size) query.set("lock", [...locked].join(","));
  return `#${query.toString().replaceAll("%3A", ":").replaceAll("%2C", ",")}`;
}

/** The index of a direction given by the server's name for it, or by its index; -1 if there is none. */
export function findDirection(directions, text) {
  const named = directions.findIndex((direction) => direction.name === text);
  if (named >= 0) return named;
  return /^\d{1,9}$/.test(text) && Number(text) < directions.length ? Number(text) : -1;
}
