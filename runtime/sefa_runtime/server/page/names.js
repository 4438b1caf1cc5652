// Names that the user gives to directions: kept in this browser, for each model.

const MAX_LENGTH = 100;

/** The names of one model's directions. */
export class Names {
  #key;
  #directions;
  #own = new Map();

  /**
   * @param {string} model
   * @param {{index: number, name: string}[]} directions As the server describes them.
   */
  constructor(model, directions) {
    this.#key = `sefa.names.${model}`;
    this.#directions = directions;
    for (const [index, entry] of Object.entries(this.#load())) {
      const direction = directions[index];
      // Of another model of that name, or of this one before it got names of its own: not ours to use.
      if (direction === undefined || entry?.was !== direction.name) continue;
      if (typeof entry.name === "string") this.#own.set(direction.index, entry.name);
    }
  }

  get(index) {
    return this.#own.get(index) ?? this.#directions[index].name;
  }

  /** What the user named, by index. */
  get own() {
    return new Map([...this.#own].sort(([a], [b]) => a - b));
  }

  /** Why `name` cannot name a direction; empty if it can. The same rules as `sefa name`. */
  problem(index, name) {
    if (name.length > MAX_LENGTH) return `A name has at most ${MAX_LENGTH} letters.`;
    if (/[=:,]/.test(name)) return "A name has no = : or , in it.";
    if (/^[+-]?\d+(_\d+)*$/u.test(name)) return "A name cannot be a number: that would be an index.";
    if (/[\p{C}\p{Zl}\p{Zp}]|[^\S ]/u.test(name)) return "A name is plain text.";
    const twin = this.#directions.find((other) => other.index !== index && this.get(other.index) === name);
    return twin ? "Another direction has this name." : "";
  }

  /** Name a direction; an empty name, or the server's own, gives it back its own. */
  set(index, name) {
    if (name === "" || name === this.#directions[index].name) this.#own.delete(index);
    else this.#own.set(index, name);
    const entries = [...this.#own].map(([at, own]) => [at, { was: this.#directions[at].name, name: own }]);
    try {
      if (entries.length) localStorage.setItem(this.#key, JSON.stringify(Object.fromEntries(entries)));
      else localStorage.removeItem(this.#key);
    } catch {
      // No room, or the browser keeps nothing: the name lasts as long as the page.
    }
  }

  #load() {
    try {
      return JSON.parse(localStorage.getItem(this.#key) ?? "{}") ?? {};
    } catch {
      return {};
    }
  }
}
