// A pane beside the scan: another series, an earlier study or the reconstruction, linked to the scan where they match.

import { blend, words } from "./amount.js";
import { begin, cutLine, isParallel, matching } from "./geometry.js";
import { Measure } from "./measure.js";
import { RECONSTRUCTION } from "./sources.js";
import { Pane, directions, follow, labelEdges } from "./viewer.js";

export class Beside {
  // `view` gives the scan: its pane, its place, and ways to move it.
  constructor(element, view, sources) {
    Object.assign(this, { element, view, sources, source: null, index: 0, linked: true, anchor: null, ticket: 0, choice: 0 });
    const part = (name) => element.querySelector(`[data-${name}]`);
    Object.assign(this, { select: part("choose"), button: part("link"), how: part("how"), words: part("words"), note: part("note"), amount: part("amount") });
    this.pane = new Pane(element, (context, _, pixel) => this.draw(context, pixel), () => this.followed());
    const elements = { words: part("probe"), bar: part("bar"), unit: () => this.unit, changed: view.sayLength };
    this.measure = new Measure(this.pane, () => `${this.key}/${this.index}`, elements);
    element.addEventListener(window.cornerstone.EVENTS.IMAGE_RENDERED, () => this.measure.scale());
    this.select.addEventListener("change", () => this.choose(this.select.value));
    this.button.addEventListener("click", () => this.link(!this.linked));
    this.amount.addEventListener("input", () => this.scrolled());
    this.offer();
  }

  get visible() {
    return !this.element.hidden;
  }

  get key() {
    return this.source ? this.source.key : "";
  }

  get isReconstruction() {
    return this.key === RECONSTRUCTION;
  }

  get unit() {
    return this.isReconstruction ? this.view.stackNow().unit : this.source.stack.unit;
  }

  get follows() {
    return this.linked || this.isReconstruction;
  }

  // The pane whose view changes when the mouse drags here.
  get lead() {
    return this.follows ? this.view.panes.main : this.pane;
  }

  offer() {
    this.sources.offer(this.select, this.key);
  }

  async choose(key) {
    const choice = (this.choice += 1); // a later one wins, whichever is loaded first
    if (key === RECONSTRUCTION && !(await this.view.endFirstLook())) return this.offer();
    this.say("loading ...");
    try {
      const source = await this.find(key);
      if (choice !== this.choice) return this.offer(); // the study that was opened for it has choices now
      if (!source) throw new Error("This study has no series that can be displayed.");
      this.source = source;
      this.index = source.stack ? begin(this.view.stackNow(), this.view.state.index, source.stack) : 0;
    } catch (error) {
      if (choice !== this.choice) return undefined;
      this.offer();
      return this.say(error.message);
    }
    Object.assign(this.pane, { image: null });
    Object.assign(this.measure, { ruler: null, cursor: null });
    this.measure.probe(null);
    this.view.changed();
    this.button.hidden = this.isReconstruction;
    this.amount.hidden = !this.isReconstruction;
    return this.link(true);
  }

  // Return what a choice means; that of a study that is not open yet is its series most like the one that is read.
  async find(key) {
    if (key === RECONSTRUCTION) return { key };
    const study = /^earlier\/(\d+)$/.exec(key);
    if (!study) return this.sources.get(key);
    return this.sources.like(await this.sources.open(Number(study[1])), this.view.stackNow().title);
  }

  link(on) {
    this.linked = on;
    this.anchor = null;
    this.button.setAttribute("aria-pressed", String(on));
    if (!on) this.tell("scrolls by itself");
    return this.scrolled(!on);
  }

  // The scan shows another image, or this pane another source.
  scrolled(asItIs = false) {
    if (!this.visible || !this.source) return undefined;
    if (this.isReconstruction) return this.reconstruct();
    if (!this.follows || asItIs) return this.pane.image ? this.pane.redraw() : this.show(this.index);
    const { stack, index } = this.view.state;
    if (!this.anchor || this.anchor.stack !== stack) this.anchor = { stack, from: index, to: this.index };
    const match = matching(this.view.stackNow(), index, this.source.stack, this.anchor, this.source.same);
    this.tell(match.how);
    return this.show(match.index);
  }

  async show(index) {
    const ticket = (this.ticket += 1);
    const last = this.source.stack.slices.length - 1;
    this.index = Math.min(Math.max(index, 0), last);
    this.words.textContent = `image ${this.index + 1} of ${last + 1}`;
    labelEdges(this.element, directions(this.source.stack.slices[this.index].directions));
    await this.display(ticket, () => this.source.loader.get(this.index));
    if (ticket === this.ticket) this.source.loader.prefetch();
  }

  async reconstruct() {
    const ticket = (this.ticket += 1);
    const { stack, index } = this.view.state;
    this.words.textContent = `image ${index + 1}`;
    const percent = Number(this.amount.value);
    this.tell(words(percent));
    this.amount.setAttribute("aria-valuetext", words(percent));
    labelEdges(this.element, directions(this.view.stackNow().slices[index].directions));
    if (!this.view.stackNow().scored) return this.say("This series was not scored.");
    return this.display(ticket, async () => {
      const { image } = await this.view.maps.reconstruction(stack, index);
      return percent ? blend(await this.view.original(stack, index), image, percent / 100) : image;
    });
  }

  async display(ticket, load) {
    try {
      const image = await load();
      if (ticket !== this.ticket) return;
      this.pane.show(image);
      this.say("");
      this.element.dataset.ready = `${this.key}/${this.index}`;
      this.followed();
    } catch (error) {
      if (ticket === this.ticket) this.say(error.message);
    }
  }

  // The view of the scan has changed: take over zoom, place and window.
  followed() {
    const main = this.view.panes.main;
    if (!this.visible || !this.source || !this.pane.image || !main.image || !this.follows) return;
    if (main.image.reconstruction) return; // while it flickers
    if (this.isReconstruction) return follow(main, this.pane, !this.pane.image.own);
    const { state, stackNow } = this.view;
    const same = !state.part && isParallel(stackNow(), state.index, this.source.stack);
    const there = same ? placed(main, this.pane) : {};
    const sharesValues = (this.source.same && this.source.number === state.stack) || (this.unit && this.unit === stackNow().unit);
    this.pane.change({ ...there, ...windowed(main, this.pane, sharesValues) });
  }

  // Scroll: the scan, where this pane follows it.
  step(by) {
    const { state, stackNow } = this.view;
    const moves = this.isReconstruction || isParallel(stackNow(), state.index, this.source.stack);
    if (this.follows && moves) return this.view.show(state.stack, state.index + by);
    this.anchor = null;
    return this.show(this.index + by);
  }

  draw(context, pixel) {
    this.measure.draw(context, pixel);
    if (!this.source || !this.source.same) return;
    const { state, stackNow } = this.view;
    const cut = cutLine(stackNow(), state.index, this.source.stack, this.index);
    if (!cut) return;
    context.beginPath();
    for (const { x, y } of cut) context.lineTo(x, y);
    Object.assign(context, { lineWidth: 1.5 * pixel, strokeStyle: "#4be3ff" });
    context.setLineDash([8 * pixel, 5 * pixel]);
    context.stroke();
    context.setLineDash([]);
  }

  tell(words) {
    const { when } = this.source;
    this.how.textContent = [when, words].filter(Boolean).join(" · ");
    this.element.classList.toggle("other", Boolean(when));
  }

  say(words) {
    this.note.textContent = words;
  }
}

// The same size in mm, where both have a pixel spacing, and the same way from the middle.
function placed(main, pane) {
  const { scale, translation } = main.viewport;
  const [here, there] = [main.image.about.spacing, pane.image.about.spacing];
  const factor = here && there
    ? (main.screenPixels() * there[1]) / here[1] / pane.screenPixels()
    : (scale * main.image.columns) / pane.image.columns / pane.viewport.scale;
  const own = pane.viewport.scale * factor;
  return { scale: own, translation: { x: (translation.x * scale) / own, y: (translation.y * scale) / own } };
}

// The same window where values mean the same; otherwise changed in proportion to that of each file.
function windowed(main, pane, sharesValues) {
  const { voi, invert } = main.viewport;
  const [from, to] = [main.image, pane.image];
  const turned = to.invert !== (invert !== from.invert);
  if (sharesValues) return { voi: { ...voi }, invert: turned };
  const wider = to.windowWidth / from.windowWidth;
  const windowCenter = to.windowCenter + (voi.windowCenter - from.windowCenter) * wider;
  return { voi: { windowCenter, windowWidth: voi.windowWidth * wider }, invert: turned };
}
