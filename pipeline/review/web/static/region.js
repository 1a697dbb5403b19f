// A region drawn by the reader on one image: a closed line in pixels of the stored image, inside it. In a decision, 0 is
// the centre of the first pixel, unlike on a canvas, where it is its edge. A line that is being drawn is a stroke: it
// becomes the region when it ends and encloses something. Until then, the region is what it was, or what a draft brings.

const FIELD = "region";
const FEWEST = 3; // points that enclose something
const NEAREST = 1.5; // least distance in pixels between two points of the line

// Return evenly spaced points of the line, at most as many as a decision may hold.
function thinned(points, most) {
  const count = Math.min(points.length, most);
  return Array.from({ length: count }, (_, place) => points[Math.floor((place * points.length) / count)]);
}

function encloses(line) {
  return line !== null && line.points.length >= FEWEST;
}

export class Regions {
  // `where()` is the place, [stack, index], of the image on display.
  constructor(scan, where, changed) {
    Object.assign(this, { scan, where, changed, region: null, stroke: null });
    this.load();
    for (const event of ["decision-shown", "draft-shown"]) document.addEventListener(event, () => this.load());
    document.addEventListener("decision-leaving", (event) => this.drawing && event.preventDefault());
    window.addEventListener("beforeunload", (event) => this.drawing && event.preventDefault());
    document.addEventListener("click", (event) => {
      if (event.target.closest("[data-erase]")) this.clear();
    });
  }

  // Take over the region that the form shows. One of other images cannot be drawn here: its draft keeps it as it is.
  load() {
    const field = document.querySelector(`[name=${FIELD}]`);
    if (!field) return;
    const region = JSON.parse(field.value || "null");
    const fits = Boolean(region) && region.layout === this.scan.layout;
    this.region = fits
      ? { ...region, points: region.points.map((point) => point.map((value) => value + 0.5)) }
      : null;
    if (fits || !region) this.keep();
    else this.say("images were added since it was drawn: draw it again, or erase it");
    this.changed();
  }

  say(text) {
    const words = document.getElementById("region-words");
    if (words) words.textContent = text;
  }

  get drawing() {
    return this.stroke !== null;
  }

  begin(point) {
    if (this.stroke) return;
    const [stack, index] = this.where();
    this.stroke = { stack, index, points: [[point.x, point.y]] };
  }

  extend(point) {
    if (!this.stroke) return;
    const last = this.stroke.points[this.stroke.points.length - 1];
    if (Math.hypot(last[0] - point.x, last[1] - point.y) < NEAREST) return;
    this.stroke.points.push([point.x, point.y]);
    this.changed();
  }

  end() {
    const line = this.stroke;
    this.stroke = null;
    if (encloses(line)) {
      this.region = line;
      this.keep();
    }
    this.changed();
    document.dispatchEvent(new Event("stroke-ended"));
  }

  clear() {
    this.region = null;
    this.stroke = null;
    this.keep();
    this.changed();
    document.dispatchEvent(new Event("stroke-ended"));
  }

  keep() {
    const field = document.querySelector(`[name=${FIELD}]`);
    if (!field) return;
    const rounded = this.region && {
      ...this.region,
      layout: this.scan.layout,
      points: thinned(this.region.points, this.scan.most_points).map((point) => point.map((value) => Math.round((value - 0.5) * 10) / 10)),
    };
    const value = rounded ? JSON.stringify(rounded) : "";
    const differs = value !== field.value;
    field.value = value;
    if (differs) field.dispatchEvent(new Event("change", { bubbles: true })); // so that the draft is saved
    this.say(rounded ? `drawn on ${this.name(rounded)}` : "none drawn");
  }

  // The image of a region in words, with its series where the scan has several: it may not be the one on display.
  name({ stack, index }) {
    const image = `image ${index + 1}`;
    const { stacks } = this.scan;
    return stacks.length > 1 ? `${image} of series ${stack + 1} (${stacks[stack]?.title})` : image;
  }

  // Draw the current region, and dashed those of the valid decisions.
  draw(context, pixel) {
    for (const kept of this.scan.regions) {
      this.line(context, pixel, { ...kept, points: kept.points.map(([x, y]) => [x + 0.5, y + 0.5]) }, "#ffd479", [6, 4]);
    }
    const latest = encloses(this.stroke) ? [this.stroke] : [this.region, this.stroke];
    for (const one of latest) if (one) this.line(context, pixel, one, "#7dff9a", []);
  }

  line(context, pixel, region, colour, dashes) {
    const [stack, index] = this.where();
    if (region.stack !== stack || region.index !== index) return;
    context.beginPath();
    for (const [x, y] of region.points) context.lineTo(x, y);
    if (region !== this.stroke) context.closePath();
    context.lineWidth = 2 * pixel;
    context.setLineDash(dashes.map((length) => length * pixel));
    context.strokeStyle = colour;
    context.stroke();
    context.setLineDash([]);
  }
}
