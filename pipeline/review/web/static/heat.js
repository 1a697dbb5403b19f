// Heatmap of a slice as colours on the scale that the server applied (0 to 1), and as the outline of the area above the calibrated threshold.

// From black-purple to pale yellow (a few stops of matplotlib's inferno: lightness rises evenly, so that it is readable
// without colour vision).
const STOPS = [
  [87, 16, 110],
  [188, 55, 84],
  [249, 142, 9],
  [252, 255, 164],
];

export function colour(share) {
  const at = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1);
  const low = Math.min(Math.floor(at), STOPS.length - 2);
  return STOPS[low].map((value, i) => Math.round(value + (STOPS[low + 1][i] - value) * (at - low)));
}

// A canvas of the map's own size, transparent where there is no difference.
export function heatCanvas({ about, pixels }) {
  const canvas = document.createElement("canvas");
  canvas.width = about.columns;
  canvas.height = about.rows;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(about.columns, about.rows);
  const table = Array.from({ length: 256 }, (_, i) => colour(i / 255));
  for (let i = 0; i < pixels.length; i += 1) {
    const share = pixels[i] * about.slope + about.intercept;
    if (share <= 0) continue;
    const [red, green, blue] = table[Math.min(Math.floor(share * 255), 255)];
    picture.data.set([red, green, blue, Math.min(Math.round(share * 4 * 255), 255)], i * 4);
  }
  context.putImageData(picture, 0, 0);
  return canvas;
}

// The outline of the pixels above the threshold, along their edges, in the map's pixel coordinates.
export function outline({ about, pixels }) {
  const path = new Path2D();
  if (about.threshold === null) return path;
  const { rows, columns } = about;
  const over = (r, c) =>
    r >= 0 && c >= 0 && r < rows && c < columns && pixels[r * columns + c] * about.slope + about.intercept > about.threshold;
  for (let r = 0; r < rows; r += 1) {
    for (let c = 0; c < columns; c += 1) {
      if (!over(r, c)) continue;
      if (!over(r - 1, c)) edge(path, c, r, c + 1, r);
      if (!over(r + 1, c)) edge(path, c, r + 1, c + 1, r + 1);
      if (!over(r, c - 1)) edge(path, c, r, c, r + 1);
      if (!over(r, c + 1)) edge(path, c + 1, r, c + 1, r + 1);
    }
  }
  return path;
}

function edge(path, x0, y0, x1, y1) {
  path.moveTo(x0, y0);
  path.lineTo(x1, y1);
}
