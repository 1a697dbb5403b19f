// "More or less of what is unusual": an image between its reconstruction (0) and itself (1), or beyond itself (up to 2).

import { cornerstoneImage } from "./slices.js";

const GREY = 65_535; // levels, where the two have no unit in common

// Return what converts stored values to those that are mixed: physical ones, or grey levels of each image's own window.
function reading(image) {
  if (!image.own) return (value) => value * image.slope + image.intercept;
  const [low, width] = [image.windowCenter - image.windowWidth / 2, image.windowWidth];
  return (value) => {
    const grey = Math.min(Math.max((value * image.slope + image.intercept - low) / width, 0), 1);
    return image.invert ? 1 - grey : grey;
  };
}

// Return reconstruction + amount * (original - reconstruction) as an image of the original's size. Its values are in the
// original's units, or grey levels where the reconstruction has units of its own.
export function blend(original, reconstruction, amount) {
  const { own } = reconstruction;
  const [from, to] = [reading({ ...reconstruction, own }), reading({ ...original, own })];
  const look = own ? { slope: 1 / GREY, intercept: 0, window: [0.5, 1], invert: false } : {};
  const about = { ...original.about, ...look };
  const [expected, stored] = [reconstruction.getPixelData(), original.getPixelData()];
  const pixels = new Int32Array(stored.length);
  for (let row = 0; row < original.rows; row += 1) {
    const line = Math.floor((row * reconstruction.rows) / original.rows) * reconstruction.columns;
    for (let column = 0; column < original.columns; column += 1) {
      const place = row * original.columns + column;
      const normal = from(expected[line + Math.floor((column * reconstruction.columns) / original.columns)]);
      const value = normal + amount * (to(stored[place]) - normal);
      pixels[place] = Math.round((value - about.intercept) / about.slope);
    }
  }
  const image = cornerstoneImage(`${original.imageId}#${amount}`, { about, pixels });
  return Object.assign(image, { reconstruction: true, own });
}

// The words beside the slider, as a share in percent.
export function words(percent) {
  if (percent === 0) return "computed: as if it were normal";
  if (percent === 100) return "the scan";
  return `computed: ${percent} % of the difference`;
}
