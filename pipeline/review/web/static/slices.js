// The slices of one stack: fetched once, the nearest first, with a bounded memory.

import { NO_ANSWER, said } from "./post.js";

const LANES = 3; // simultaneous prefetches; a browser allows six connections per host, and the current slice needs one
const HELD_BYTES = 768 * 2 ** 20;
const ARRAYS = { uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array };

// Fetch an image: { about, pixels }. `about` is the description in the response header.
export async function fetchImage(url) {
  // With the same options as the page's preload, so that the first image is fetched once.
  const response = await fetch(url).catch(() => {
    throw Object.assign(new Error(`${NO_ANSWER} Trying again ...`), { status: 0 });
  });
  if (response.redirected || response.status === 401) {
    window.location.reload();
    throw new Error("The session has ended.");
  }
  if (response.status !== 200) throw Object.assign(new Error(await said(response)), { status: response.status });
  const about = JSON.parse(response.headers.get("X-Image"));
  return { about, pixels: new ARRAYS[about.dtype](await response.arrayBuffer()) };
}

// An image in cornerstone's format: integers with a slope, an intercept and a window in physical units.
export function cornerstoneImage(id, { about, pixels }) {
  let low = pixels[0];
  let high = pixels[0];
  for (let i = 1; i < pixels.length; i += 1) {
    if (pixels[i] < low) low = pixels[i];
    else if (pixels[i] > high) high = pixels[i];
  }
  return {
    imageId: id,
    minPixelValue: low,
    maxPixelValue: high,
    slope: about.slope,
    intercept: about.intercept,
    windowCenter: about.window[0],
    windowWidth: about.window[1],
    invert: about.invert,
    rows: about.rows,
    columns: about.columns,
    height: about.rows,
    width: about.columns,
    rowPixelSpacing: about.spacing ? about.spacing[0] : undefined,
    columnPixelSpacing: about.spacing ? about.spacing[1] : undefined,
    color: false,
    sizeInBytes: pixels.byteLength,
    getPixelData: () => pixels,
    about,
  };
}

export class Slices {
  // `url(index)` is the address of a slice; `count` is the number of slices; `lanes` of prefetches run at once.
  constructor(url, count, lanes = LANES) {
    this.lanes = lanes;
    this.url = url;
    this.count = count;
    this.held = new Map();
    this.waiting = new Map();
    this.bytes = 0;
    this.centre = 0;
    this.running = 0;
    this.failed = new Set();
  }

  has(index) {
    return this.held.has(index);
  }

  // Return the image of a slice, at once if it is cached.
  get(index) {
    this.centre = index;
    if (this.held.has(index)) return Promise.resolve(this.held.get(index));
    return this.load(index);
  }

  load(index) {
    if (this.held.has(index)) return Promise.resolve(this.held.get(index));
    if (this.waiting.has(index)) return this.waiting.get(index);
    const url = this.url(index);
    const found = fetchImage(url)
      .then((answer) => this.keep(index, cornerstoneImage(url, answer)))
      .finally(() => this.waiting.delete(index));
    this.waiting.set(index, found);
    return found;
  }

  keep(index, image) {
    this.held.set(index, image);
    this.bytes += image.sizeInBytes;
    while (this.bytes > HELD_BYTES && this.held.size > 1) this.drop(this.farthest());
    return image;
  }

  farthest() {
    return [...this.held.keys()].reduce((a, b) => (Math.abs(b - this.centre) > Math.abs(a - this.centre) ? b : a));
  }

  drop(index) {
    this.bytes -= this.held.get(index).sizeInBytes;
    this.held.delete(index);
  }

  // Prefetch the slices nearest to the current one, until all are loaded or memory is full.
  prefetch() {
    while (this.running < this.lanes) {
      const index = this.next();
      if (index === null) return;
      this.running += 1;
      this.load(index)
        .catch(() => this.failed.add(index))
        .finally(() => {
          this.running -= 1;
          this.prefetch();
        });
    }
  }

  next() {
    const size = this.held.size ? this.bytes / this.held.size : 0;
    if (this.bytes + size * (this.waiting.size + 1) > HELD_BYTES) return null;
    for (let away = 0; away < this.count; away += 1) {
      for (const index of [this.centre + away, this.centre - away]) {
        const wanted = index >= 0 && index < this.count;
        if (wanted && !this.held.has(index) && !this.waiting.has(index) && !this.failed.has(index)) return index;
      }
    }
    return null;
  }
}
