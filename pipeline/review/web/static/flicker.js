// Alternate original and reconstruction in one place, so that differences appear to move.

const TURN_MS = 450;

export class Flicker {
  // `pane` shows them; `fetch(original)` returns the current image; `told(on, words)` is called on changes.
  constructor(pane, fetch, told) {
    Object.assign(this, { pane, fetch, told, timer: null, original: true });
  }

  get on() {
    return this.timer !== null;
  }

  start() {
    this.timer = setInterval(() => this.turn(), TURN_MS);
    this.told(true, "");
  }

  async stop(words = "") {
    clearInterval(this.timer);
    this.timer = null;
    this.original = true;
    this.told(false, words);
    if (this.pane.image.reconstruction) this.pane.swap(await this.fetch(true));
  }

  async turn() {
    const original = !this.original;
    try {
      const image = await this.fetch(original);
      if (!this.on) return;
      this.original = original;
      this.pane.swap(image);
      this.told(true, original ? "" : "reconstruction");
    } catch (error) {
      this.stop(error.message);
    }
  }
}
