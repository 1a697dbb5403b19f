// Heatmaps and reconstructions of slices: each is requested once, and retried while the server computes it.

import { cornerstoneImage, fetchImage } from "./slices.js";

const MOST = 400;
const AGAIN_MS = 700;

export class Maps {
  constructor(scan) {
    this.scan = scan;
    this.asked = new Map();
  }

  // Return the map of a slice; `kind` is heat or reconstruction.
  get(kind, stack, index) {
    const key = `${kind}/${stack}/${index}`;
    if (!this.asked.has(key)) {
      const asked = patiently(`${this.scan.base}/${key}?layout=${this.scan.layout}`);
      this.asked.set(key, asked);
      asked.catch(() => this.asked.delete(key));
      if (this.asked.size > MOST) this.asked.delete(this.asked.keys().next().value);
    }
    return this.asked.get(key);
  }

  // Return a reconstruction with its image. `own`: it has its own values and window instead of the original's.
  async reconstruction(stack, index) {
    const answer = await this.get("reconstruction", stack, index);
    if (!answer.image) {
      answer.image = cornerstoneImage(`reconstruction/${stack}/${index}`, answer);
      Object.assign(answer.image, { reconstruction: true, own: !answer.about.linked });
    }
    return answer;
  }
}

async function patiently(url) {
  for (;;) {
    try {
      return await fetchImage(url);
    } catch (error) {
      if (error.status !== 202 && error.status !== 0) throw error;
      await new Promise((done) => setTimeout(done, AGAIN_MS));
    }
  }
}
