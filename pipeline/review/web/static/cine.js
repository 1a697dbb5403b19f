// Play the images of a stack like a film, round and round; each waits until the one before it is displayed.

export class Cine {
  // `next()` shows the next image and returns a promise; `speed()` is in images per second; `told(on)` on each change.
  constructor(next, speed, told) {
    Object.assign(this, { next, speed, told, on: false, turn: 0 });
    document.addEventListener("visibilitychange", () => document.hidden && this.stop());
  }

  toggle() {
    if (this.on) this.stop();
    else this.start();
  }

  async start() {
    const turn = (this.turn += 1);
    this.on = true;
    this.told(true);
    while (this.on && turn === this.turn) {
      const pause = new Promise((done) => setTimeout(done, 1000 / this.speed()));
      await Promise.all([this.next(), pause]);
    }
  }

  stop() {
    if (!this.on) return;
    this.on = false;
    this.told(false);
  }
}
