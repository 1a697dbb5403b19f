// A region drawn by the reader on one image: a closed line in pixels of the stored image, inside it. In a decision, 0 is
// the centre of the first pixel, unlike on a canvas, where it is its edge.

const FIELD = "region";
const MOST = 2000;
const NEAREST = 1.5; // least distance in pixels between two points of the line

// Return evenly spaced points of the line, at most as many as a decision may hold.
function thinned(points) {
  const step = Math.ceil(points.length / MOST);
  return points.filter((_, place) => place % step === 0);
}

export class Regions {
  constructor(scan, where, changed) {
    this.scan = scan;
    this.where = where;
    this.changed = changed;
    this.region = null;
    this.drawing = false;
    this.load();
    for (const event of ["decision-shown", "draft-shown"]) document.addEventListener(event, () => this.load());
    document.addEventListener("click", (event) => {
      if (event.target.closest("[data-erase]")) this.clear();
    });
  }

  // Take over the region that a draft brought along.
  load() {
    const field = document.querySelector(`[name=${FIELD}]`);
    const region = JSON.parse((field && field.value) || "null");
    if (field && !region) this.region = null;
    if (region && region.layout === this.scan.layout) {
      this.region = { ...region, points: region.points.map((point) => point.map((value) => value + 0.5)) };
    }
    this.keep();
    this.changed();
    const words = document.getElementById("region-words");
    if (words && region && !this.region) words.textContent = "images were added since it was drawn: draw it again";
  }

  begin(point) {
    const [stack, index] = this.where();
    this.drawing = true;
    this.region = { stack, index, points: [[point.x, point.y]] };
  }

  extend(point) {
    if (!this.drawing) return;
    const last = this.region.points[this.region.points.length - 1];
    if (Math.hypot(last[0] - point.x, last[1] - point.y) < NEAREST) return;
    this.region.points.push([point.x, point.y]);
    this.changed();
  }

  end() {
    this.drawing = false;
    if (this.region && this.region.points.length < 3) this.region = null;
    this.keep();
    this.changed();
  }

  clear() {
    this.region = null;
    this.keep();
    this.changed();
  }

  keep() {
    const field = document.querySelector(`[name=${FIELD}]`);
    if (!field) return;
    const rounded = this.region && {
      ...this.region,
      layout: this.scan.layout,
      points: thinned(this.region.points).map((point) => point.map((value) => Math.round((value - 0.5) * 10) / 10)),
    };
    const value = rounded ? JSON.stringify(rounded) : "";
    const differs = value !== field.value;
    field.value = value;
    if (differs) field.dispatchEvent(new Event("change", { bubbles: true })); // so that the draft is saved
    const words = document.getElementById("region-words");
    if (words) words.textContent = rounded ? `drawn on image ${rounded.index + 1}` : "none drawn";
  }

  // Draw the current region, and dashed those of the valid decisions.
  draw(context, pixel) {
    for (const kept of this.scan.regions) {
      this.line(context, pixel, { ...kept, points: kept.points.map(([x, y]) => [x + 0.5, y + 0.5]) }, "#ffd479", [6, 4]);
    }
    if (this.region) this.line(context, pixel, this.region, "#7dff9a", []);
  }

  line(context, pixel, region, colour, dashes) {
    const [stack, index] = this.where();
    if (region.stack !== stack || region.index !== index) return;
    context.beginPath();
    for (const [x, y] of region.points) context.lineTo(x, y);
    if (region !== this.region || !this.drawing) context.closePath();
    context.lineWidth = 2 * pixel;
    context.setLineDash(dashes.map((length) => length * pixel));
    context.strokeStyle = colour;
    context.stroke();
    context.setLineDash([]);
  }
}
