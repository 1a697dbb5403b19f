// Coronal and sagittal reformats of an axial stack whose pixels are about as far apart in all three directions.

import { cornerstoneImage } from "./slices.js";

const LEAST = 8; // slices
const UNEVEN = 1.6; // largest ratio of two distances between neighbouring pixels
const AXIAL = 0.9; // least share of the normal along the body
const MOST_BYTES = 512 * 2 ** 20; // a reformat needs all slices at once

const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const moved = (point, way, mm) => point.map((value, i) => value + way[i] * mm);

// Return the reformats of a series as sources of a pane; none where the geometry does not allow them.
export function reformats({ stack, loader, number }) {
  const axis = axisOf(stack);
  if (!axis) return [];
  const volume = new Volume(stack, loader, axis.up);
  return ["coronal", "sagittal"].map((name) => ({
    key: `${name}/${number}`,
    same: true,
    number,
    stack: planes(stack, axis, name === "coronal"),
    loader: { get: (index) => volume.cut(name === "coronal", index), prefetch() {} },
  }));
}

// The axes of a regular, axial, nearly isotropic stack: `up` tells whether later slices lie nearer to the head.
function axisOf(stack) {
  const [first] = stack.slices;
  if (stack.slices.length < LEAST || !stack.spacing || !stack.sliceMm || !first.directions || !first.position) return null;
  const distances = [...stack.spacing, stack.sliceMm];
  if (Math.max(...distances) > UNEVEN * Math.min(...distances)) return null;
  if (stack.rows * stack.columns * 2 * stack.slices.length > MOST_BYTES) return null;
  const [along, down] = [first.directions.slice(0, 3), first.directions.slice(3)];
  const normal = cross(along, down);
  if (Math.abs(normal[2]) < AXIAL) return null;
  if (stack.slices.some(({ frame }) => frame !== first.frame)) return null; // their places have no common origin
  const last = stack.slices[stack.slices.length - 1];
  return { along, down, up: last.position[2] > first.position[2] };
}

function planes(stack, { along, down, up }, isCoronal) {
  const { frame } = stack.slices[0];
  const [rowMm, columnMm] = stack.spacing;
  const [count, step, across] = isCoronal ? [stack.rows, rowMm, down] : [stack.columns, columnMm, along];
  const top = stack.slices[up ? stack.slices.length - 1 : 0].position;
  const bottom = stack.slices[up ? 0 : stack.slices.length - 1].position;
  const height = Math.hypot(...bottom.map((value, i) => value - top[i]));
  const feet = bottom.map((value, i) => (value - top[i]) / height);
  const directions = [...(isCoronal ? along : down), ...feet];
  return {
    title: `${isCoronal ? "Coronal" : "Sagittal"} from ${stack.title}`,
    rows: stack.slices.length,
    columns: isCoronal ? stack.columns : stack.rows,
    spacing: [stack.sliceMm, isCoronal ? columnMm : rowMm],
    sliceMm: step,
    unit: stack.unit,
    presets: stack.presets,
    slices: Array.from({ length: count }, (_, index) => ({ directions, position: moved(top, across, index * step), frame })),
  };
}

class Volume {
  constructor(stack, loader, up) {
    Object.assign(this, { stack, loader, up, asked: null });
  }

  // Load all slices, from the head downwards.
  images() {
    const order = this.stack.slices.map((_, index) => index);
    if (this.up) order.reverse();
    this.asked ||= this.load(order).catch((error) => {
      this.asked = null;
      throw error;
    });
    return this.asked;
  }

  async load(order) {
    const images = [];
    for (const index of order) images.push(await this.loader.load(index));
    const [{ rows, columns, slope, intercept, about }] = images;
    const even = images.every((one) => one.rows === rows && one.columns === columns && one.slope === slope && one.intercept === intercept);
    if (!even || about.reduced > 1) throw new Error("The images of this series differ in size or scale: it cannot be reformatted.");
    return images;
  }

  async cut(isCoronal, index) {
    const images = await this.images();
    const [{ rows, columns, about, windowCenter, windowWidth }] = images;
    const width = isCoronal ? columns : rows;
    const first = images[0].getPixelData();
    const pixels = new first.constructor(images.length * width);
    images.forEach((image, row) => {
      const source = image.getPixelData();
      for (let x = 0; x < width; x += 1) pixels[row * width + x] = source[isCoronal ? index * columns + x : x * columns + index];
    });
    const [rowMm, columnMm] = this.stack.spacing;
    const spacing = [this.stack.sliceMm, isCoronal ? columnMm : rowMm];
    const box = [0, 0, images.length, width];
    const own = { ...about, rows: images.length, columns: width, spacing, box, window: [windowCenter, windowWidth] };
    return cornerstoneImage(`${isCoronal ? "coronal" : "sagittal"}/${index}`, { about: own, pixels });
  }
}
