// A region drawn by the reader on one image: a closed line in pixels of the stored image. It goes into the decision.

const FIELD = "region";
const NEAREST = 1.5; // pixels between two points of the line

export class Regions {
  constructor(where, changed) {
    this.where = where;
    this.changed = changed;
    this.region = null;
    this.drawing = false;
    this.keep();
    document.addEventListener("click", (event) => {
      if (event.target.closest("[data-erase]")) this.clear();
    });
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
      points: this.region.points.slice(0, 2000).map((point) => point.map((value) => Math.round(value * 10) / 10)),
    };
    field.value = rounded ? JSON.stringify(rounded) : "";
    const words = document.getElementById("region-words");
    if (words) words.textContent = rounded ? `drawn on image ${rounded.index + 1}` : "none drawn";
  }

  draw(context, pixel) {
    const [stack, index] = this.where();
    if (!this.region || this.region.stack !== stack || this.region.index !== index) return;
    context.beginPath();
    for (const [x, y] of this.region.points) context.lineTo(x, y);
    if (!this.drawing) context.closePath();
    context.lineWidth = 2 * pixel;
    context.strokeStyle = "#7dff9a";
    context.stroke();
  }
}
