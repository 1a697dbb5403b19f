// Ruler, scale bar and pixel probe of a pane. Lengths are in mm where the file gives a pixel spacing, and never guessed.

const BARS_MM = [200, 100, 50, 20, 10, 5, 2, 1, 0.5];
const LONGEST = 0.22; // of the pane's width
const UNKNOWN = "no pixel spacing";
const WHERE = { patient: "", detector: " at the detector", projection: " in the projection" };
const TINT = "#ffd479";

// The length of a line between two points of the stored image, in words.
export function lengthWords({ spacing, measured }, from, to) {
  const [columns, rows] = [to.x - from.x, to.y - from.y];
  if (!spacing) return `${Math.round(Math.hypot(columns, rows))} pixels (${UNKNOWN})`;
  const mm = Math.hypot(columns * spacing[1], rows * spacing[0]);
  return `${mm.toFixed(mm < 10 ? 2 : 1)} mm${WHERE[measured]}`;
}

// The value of a pixel of an image, in words: position and physical value, with its unit where that is known.
export function valueWords(image, point, unit) {
  if (!image) return ""; // it is still loading
  const { reduced, box, slope, intercept, exact } = image.about;
  const column = Math.floor((point.x - box[1]) / reduced);
  const row = Math.floor((point.y - box[0]) / reduced);
  if (row < 0 || column < 0 || row >= image.rows || column >= image.columns) return "";
  const value = image.getPixelData()[row * image.columns + column] * slope + intercept;
  const digits = Number.isInteger(slope) && Number.isInteger(intercept) ? 0 : Math.min(Math.max(Math.ceil(-Math.log10(Math.abs(slope))), 0), 4);
  const about = exact && reduced === 1 ? "" : "≈ ";
  return `column ${Math.floor(point.x)}, row ${Math.floor(point.y)}: ${about}${value.toFixed(digits)}${unit ? ` ${unit}` : ""}`.replace("-", "−");
}

export class Measure {
  // `where()` names the image that the pane shows; `words` and `bar` are the elements of the probe and of the scale bar.
  constructor(pane, where, { words, bar, unit, changed = () => {} }) {
    Object.assign(this, { pane, where, words, bar, unit, changed, ruler: null, cursor: null, drawing: false });
  }

  begin(point) {
    this.drawing = true;
    this.ruler = { image: this.where(), from: point, to: point };
  }

  extend(point) {
    if (!this.drawing) return;
    this.ruler.to = point;
    this.pane.redraw();
  }

  end() {
    this.drawing = false;
    const { from, to } = this.ruler;
    if (Math.hypot(to.x - from.x, to.y - from.y) < 1) this.ruler = null;
    this.pane.redraw();
    this.changed(this.ruler ? lengthWords(this.pane.image.about, from, to) : "");
  }

  clear() {
    this.ruler = null;
    this.pane.redraw();
    this.changed("");
  }

  // Show the value under the pointer, or under the cross of the keyboard.
  probe(point) {
    const at = point || this.cursor;
    this.words.textContent = at && this.pane.image ? valueWords(this.pane.image, at, this.unit()) : "";
  }

  // Move the cross by whole pixels; null takes it away.
  cross(point) {
    if (!this.pane.image) return;
    const { rows, columns, about } = this.pane.image;
    const inside = (value, first, count) => Math.min(Math.max(value, first + 0.5), first + count * about.reduced - 0.5);
    this.cursor = point && { x: inside(point.x, about.box[1], columns), y: inside(point.y, about.box[0], rows) };
    this.probe(null);
    this.pane.redraw();
  }

  // Begin the ruler at the cross, or end it there.
  mark() {
    if (!this.cursor) return false;
    if (!this.drawing) this.begin({ ...this.cursor });
    else {
      this.ruler.to = { ...this.cursor };
      this.end();
    }
    return true;
  }

  draw(context, pixel) {
    if (this.drawing && this.cursor) this.ruler.to = this.cursor;
    if (this.ruler && this.ruler.image === this.where()) this.drawRuler(context, pixel);
    if (this.cursor) this.drawCross(context, pixel);
  }

  drawRuler(context, pixel) {
    const { from, to } = this.ruler;
    line(context, pixel, [[from, to]]);
    const place = context.getTransform().transformPoint({ x: Math.max(from.x, to.x), y: (from.y + to.y) / 2 });
    context.save();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.font = "600 14px system-ui, sans-serif";
    context.textBaseline = "middle";
    const words = lengthWords(this.pane.image.about, from, to);
    const room = context.canvas.width - context.measureText(words).width - 6;
    for (const [style, width] of [["#000", 4], [TINT, 0]]) {
      Object.assign(context, { strokeStyle: style, fillStyle: style, lineWidth: width, lineJoin: "round" });
      const at = [words, Math.max(Math.min(place.x + (this.cursor ? 18 : 8), room), 4), place.y];
      if (width) context.strokeText(...at);
      else context.fillText(...at);
    }
    context.restore();
  }

  drawCross(context, pixel) {
    const { x, y } = this.cursor;
    const [gap, arm] = [3 * pixel, 12 * pixel];
    const arms = [[-1, 0], [1, 0], [0, -1], [0, 1]].map(([dx, dy]) => [
      { x: x + dx * gap, y: y + dy * gap },
      { x: x + dx * arm, y: y + dy * arm },
    ]);
    line(context, pixel, arms);
  }

  // Fit the scale bar to the zoom.
  scale() {
    if (!this.pane.image) return undefined;
    const { spacing, measured } = this.pane.image.about;
    const bar = this.bar.querySelector("i");
    bar.hidden = !spacing;
    if (!spacing) return this.write(UNKNOWN);
    const across = this.pane.screenPixels() / spacing[1]; // screen pixels of a mm
    const longest = this.pane.element.clientWidth * LONGEST;
    const mm = BARS_MM.find((length) => length * across <= longest) || BARS_MM[BARS_MM.length - 1];
    bar.style.width = `${Math.round(mm * across)}px`;
    return this.write(`${mm} mm${WHERE[measured]}`);
  }

  write(text) {
    const words = this.bar.querySelector("span");
    if (words.textContent !== text) words.textContent = text;
  }
}

function line(context, pixel, parts) {
  context.beginPath();
  for (const [from, to] of parts) {
    context.moveTo(from.x, from.y);
    context.lineTo(to.x, to.y);
  }
  for (const [style, width] of [["#000c", 4], [TINT, 2]]) {
    context.strokeStyle = style;
    context.lineWidth = width * pixel;
    context.stroke();
  }
}
