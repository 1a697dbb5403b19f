// Layouts of the scan page: one, two or four panes, and what fills those beside the scan.

import { RECONSTRUCTION } from "./sources.js";

const PANES = { "1x1": 1, "1x2": 2, "2x2": 4 };

export class Layouts {
  // `viewer` holds the panes, `beside` are those next to the scan, `view` gives the scan.
  constructor(viewer, beside, view) {
    Object.assign(this, { viewer, beside, view, name: "1x1", before: null, turn: 0 });
  }

  // What may fill the further panes, in the order of the hanging protocol; `taken` holds what is on display.
  candidates(taken) {
    const { scan, state } = this.view;
    const kinds = {
      earlier: scan.earlier.map((_, number) => `earlier/${number}`),
      series: scan.stacks.map((_, number) => `own/${number}`).filter((key) => key !== `own/${state.stack}`),
    };
    const named = scan.hanging.beside;
    const order = [...named, ...Object.keys(kinds).filter((kind) => !named.includes(kind))];
    return order.flatMap((kind) => kinds[kind]).filter((key) => !taken.some((one) => one === key || one.startsWith(`${key}/`)));
  }

  // Open as the hanging protocol says, with no more panes than it can fill.
  begin() {
    const { layout, beside } = this.view.scan.hanging;
    const has = { earlier: this.view.scan.earlier.length, series: this.view.scan.stacks.length - 1 };
    const fill = beside.reduce((sum, kind) => sum + has[kind], 0);
    const fits = Math.min(PANES[layout] - 1, fill);
    return this.set(fits === 0 ? "1x1" : fits === 1 ? "1x2" : layout);
  }

  // Show a source in the first pane beside the scan.
  async open(key) {
    if (this.name === "1x1") this.beside[0].element.hidden = false;
    await this.beside[0].choose(key);
    return this.set(this.name === "1x1" ? "1x2" : this.name);
  }

  async set(name) {
    const turn = (this.turn += 1);
    this.name = name;
    this.viewer.dataset.layout = name;
    this.beside.forEach((one, place) => (one.element.hidden = place >= PANES[name] - 1));
    for (const button of document.querySelectorAll("[data-layout-of]")) {
      button.setAttribute("aria-pressed", String(button.dataset.layoutOf === name));
    }
    this.view.changed();
    await new Promise(requestAnimationFrame); // panes have their sizes then
    for (const one of this.beside.filter(({ visible }) => visible)) {
      if (turn !== this.turn) return; // another layout was chosen meanwhile
      const [next] = this.candidates(this.beside.map(({ key }) => key));
      if (one.source) one.scrolled();
      else if (next) await one.choose(next);
      else one.say("Choose above what to show here.");
    }
  }

  get reconstructs() {
    return this.beside.some((one) => one.visible && one.isReconstruction);
  }

  // Show the reconstruction in the first pane beside the scan, or what was there before.
  async reconstruct() {
    const [first] = this.beside;
    if (this.reconstructs) {
      const { name, key } = this.before || { name: "1x1", key: "" };
      if (key) await first.choose(key);
      return this.set(name);
    }
    this.before = { name: this.name, key: first.visible && !first.isReconstruction ? first.key : "" };
    return this.open(RECONSTRUCTION);
  }
}
