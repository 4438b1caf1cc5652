// One request at a time, for what is wanted last.

/**
 * Does the latest of what is wanted. While one is under way, the next waits; a newer one takes its place, so that what
 * was overtaken is never asked for, and what is under way is finished: a slider in motion is followed, however slow.
 */
export class Latest {
  #work;
  #next = null;
  #abort = null;

  /** @param {(wanted: any, signal: AbortSignal) => Promise<void>} work Must not throw. */
  constructor(work) {
    this.#work = work;
  }

  /** Whether nothing is under way. */
  get idle() {
    return this.#abort === null;
  }

  want(wanted) {
    this.#next = { wanted };
    if (this.idle) this.#run();
  }

  /** Give up what is under way and what waits. */
  drop() {
    this.#next = null;
    this.#abort?.abort();
  }

  async #run() {
    while (this.#next !== null) {
      const { wanted } = this.#next;
      this.#next = null;
      this.#abort = new AbortController();
      await this.#work(wanted, this.#abort.signal);
    }
    this.#abort = null;
  }
}
