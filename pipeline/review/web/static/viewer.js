// One pane: a cornerstone image with its overlays. All coordinates are those of the stored image,
// whether the pane shows it whole, reduced, or in part.

const cornerstone = window.cornerstone;

function ownLook(image) {
  return { voi: { windowWidth: image.windowWidth, windowCenter: image.windowCenter }, invert: image.invert };
}

export class Pane {
  constructor(element, draw, resized = () => {}) {
    this.element = element;
    this.image = null;
    this.look = null; // saved window and inversion of the originals, while an image with its own values is shown
    this.draw = draw;
    this.afterResize = resized;
    this.isStill = () => false; // while a line is drawn, the image stays where it is under the pen
    this.resizes = false; // once it may move again
    cornerstone.enable(element);
    element.addEventListener(cornerstone.EVENTS.IMAGE_RENDERED, (event) => this.rendered(event.detail));
    new ResizeObserver(() => this.resized()).observe(element);
  }

  show(image) {
    const before = this.image;
    this.image = image;
    cornerstone.displayImage(this.element, image);
    if (!before) this.fit();
    else if (before.rows !== image.rows || before.columns !== image.columns) this.fit();
    if (!before || image.own) this.change(ownLook(image));
    else if (before.own) this.change(this.look);
  }

  // Show another image of the same scan in the same place. An image with its own values has its own window; the next
  // original gets back the window that the reader chose.
  swap(image) {
    const { scale, translation, voi, invert } = this.viewport;
    const ratio = this.image.columns / image.columns;
    if (!this.image.own) this.look = { voi, invert };
    this.image = image;
    cornerstone.displayImage(this.element, image);
    const place = { x: translation.x / ratio, y: translation.y / ratio };
    this.set({ scale: scale * ratio, translation: place, ...(image.own ? ownLook(image) : this.look) });
  }

  get viewport() {
    return this.image ? cornerstone.getViewport(this.element) : null;
  }

  change({ scale, translation, ...look }) {
    const place = Object.entries({ scale, translation }).filter(([, value]) => value !== undefined && !this.isStill());
    this.set({ ...look, ...Object.fromEntries(place) });
  }

  set(values) {
    if (!this.image) return;
    const viewport = this.viewport;
    Object.assign(viewport, { ...values, voi: { ...viewport.voi, ...(values.voi || {}) } });
    cornerstone.setViewport(this.element, viewport);
  }

  fit() {
    if (this.isStill()) return;
    cornerstone.resize(this.element, true);
    this.change({ translation: { x: 0, y: 0 } });
  }

  // Return how many screen pixels a pixel of the stored image is wide.
  screenPixels() {
    const [left, right] = [0, 1].map((x) => cornerstone.pixelToCanvas(this.element, { x, y: 0 }).x);
    return Math.abs(right - left) / this.image.about.reduced;
  }

  resized() {
    if (!this.image || !this.element.clientWidth) return;
    this.resizes = this.isStill();
    if (this.resizes) return;
    cornerstone.resize(this.element, true);
    this.afterResize();
  }

  // Convert a point of the page to pixels of the stored image; null before there is one.
  point(event) {
    if (!this.image) return null;
    const { x, y } = cornerstone.pageToPixel(this.element, event.pageX, event.pageY);
    const { box, reduced } = this.image.about;
    const inside = (value, edge) => Math.min(Math.max(value, 0), edge);
    return {
      x: inside(x, this.image.columns) * reduced + box[1],
      y: inside(y, this.image.rows) * reduced + box[0],
    };
  }

  zoom(factor) {
    if (!this.image) return;
    this.change({ scale: Math.min(Math.max(this.viewport.scale * factor, 0.02), 60) });
  }

  rendered(detail) {
    if (!this.image) return;
    const context = detail.canvasContext;
    const { box, reduced } = this.image.about;
    cornerstone.setToPixelCoordinateSystem(detail.enabledElement, context);
    context.scale(1 / reduced, 1 / reduced);
    context.translate(-box[1], -box[0]);
    this.draw(context, this, reduced / detail.viewport.scale);
    context.setTransform(1, 0, 0, 1, 0, 0);
  }

  redraw() {
    if (this.resizes && !this.isStill()) this.resized();
    else if (this.image) cornerstone.updateImage(this.element);
  }
}

// Let `follower` show the same place and size as `leader`, and the same window if it applies.
export function follow(leader, follower, linked) {
  if (!leader.image || !follower.image) return;
  const { scale, translation, voi, invert } = leader.viewport;
  const ratio = leader.image.columns / follower.image.columns;
  const place = { x: translation.x / ratio, y: translation.y / ratio };
  follower.change({ scale: scale * ratio, translation: place, ...(linked ? { voi, invert } : {}) });
}

// Letters of the patient's directions at the four edges, from the direction cosines of rows and columns (PS3.3 C.7.6.1.1.1).
export function directions(cosines) {
  if (!cosines) return null;
  const name = (vector) => {
    const pairs = [["L", "R"], ["P", "A"], ["H", "F"]];
    const axis = [0, 1, 2].reduce((a, b) => (Math.abs(vector[b]) > Math.abs(vector[a]) ? b : a));
    const [plus, minus] = pairs[axis];
    return vector[axis] > 0 ? [plus, minus] : [minus, plus];
  };
  const [right, left] = name(cosines.slice(0, 3));
  const [bottom, top] = name(cosines.slice(3));
  return { right, left, bottom, top };
}

// Write the letters at the edges of a pane; none where the file does not say.
export function labelEdges(element, letters) {
  for (const edge of ["left", "right", "top", "bottom"]) {
    element.querySelector(`.edge.${edge}`).textContent = letters ? letters[edge] : "";
  }
}
