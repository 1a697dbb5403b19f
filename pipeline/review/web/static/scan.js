// The scan page: slices, window, heatmap, regions, and what lies beside the scan.

import { Beside } from "./beside.js";
import { Cine } from "./cine.js";
import { bindKeys, bindMouse } from "./controls.js";
import { Flicker } from "./flicker.js";
import { begin, matching, sharesOrigin } from "./geometry.js";
import { Layouts } from "./layout.js";
import { drawLegend } from "./legend.js";
import { Maps } from "./maps.js";
import { Measure } from "./measure.js";
import { Sources } from "./sources.js";
import { Slices, cornerstoneImage, fetchImage } from "./slices.js";
import { heatCanvas, outline } from "./heat.js";
import { Pane, directions, labelEdges } from "./viewer.js";
import { Regions } from "./region.js";
import { post } from "./post.js";

const AGAIN_MS = 3_000;
const scan = JSON.parse(document.getElementById("scan-data").textContent);
const by = (id) => document.getElementById(id);
const state = {
  stack: scan.start[0],
  index: scan.start[1],
  tool: "window",
  heat: scan.heatmap,
  contour: scan.revealed,
  part: null,
  preset: -1,
  shown: 0,
};
const loaders = scan.stacks.map(
  (stack, number) => new Slices((index) => `${scan.base}/pixels/${number}/${index}?layout=${scan.layout}`, stack.slices.length),
);
const maps = new Maps(scan);
const overlays = new WeakMap();
const panes = {};
const sources = new Sources(scan, loaders);
let beside = [];
let layouts = null;
let measure = null;
let cine = null;
const regions = new Regions(scan, here, () => panes.main && panes.main.redraw());

// An image knows its place, so that what is drawn on it is filed under it, whatever else is being loaded.
function located(image, stack, index, part = null) {
  return Object.assign(image, { at: [stack, index], part });
}

// The place of the image on display.
function here() {
  return panes.main && panes.main.image ? panes.main.image.at : [state.stack, state.index];
}

function stackNow() {
  return scan.stacks[state.stack];
}

function say(text) {
  by("viewer-status").textContent = text;
}

// The length is drawn on the image: this says it to those who do not see it.
function sayLength(text) {
  by("ruler-words").textContent = text;
}

function overlayOf(answer) {
  if (!overlays.has(answer)) overlays.set(answer, { canvas: heatCanvas(answer), path: outline(answer) });
  return overlays.get(answer);
}

let heatNow = null;
let flicker = null;

async function imageNow(original) {
  const { stack, index } = state;
  const image = original ? await loaders[stack].get(index) : (await maps.reconstruction(stack, index)).image;
  const isLate = stack !== state.stack || index !== state.index;
  return isLate ? imageNow(original) : located(image, stack, index);
}

function drawOver(context, pane, pixel) {
  const plain = pane.image.reconstruction;
  if (heatNow && !plain && heatNow.stack === state.stack && heatNow.index === state.index) drawHeat(context, pixel);
  if (!plain) regions.draw(context, pixel);
  measure.draw(context, pixel);
}

function drawHeat(context, pixel) {
  const { canvas, path } = overlayOf(heatNow.answer);
  const factor = heatNow.answer.about.reduced;
  context.save();
  context.scale(factor, factor);
  if (state.heat) {
    context.globalAlpha = Number(by("opacity").value) / 100;
    context.imageSmoothingEnabled = true;
    context.drawImage(canvas, 0, 0);
    context.globalAlpha = 1;
  }
  if (state.contour) {
    context.lineWidth = (3 * pixel) / factor;
    context.strokeStyle = "#000a";
    context.stroke(path);
    context.lineWidth = (1.5 * pixel) / factor;
    context.strokeStyle = "#4be3ff";
    context.stroke(path);
  }
  context.restore();
}

async function show(stack, index, { keepPart = false } = {}) {
  if (regions.drawing) return refuse();
  const ticket = (state.shown += 1);
  const changed = stack !== state.stack;
  state.stack = stack;
  state.index = Math.min(Math.max(index, 0), scan.stacks[stack].slices.length - 1);
  if (!keepPart) state.part = null;
  label();
  try {
    const image = await loaders[stack].get(state.index);
    if (ticket !== state.shown) return;
    pane(located(image, stack, state.index), changed);
    by("viewer").dataset.ready = `${stack}/${state.index}`;
    if (!window.firstImage) window.firstImage = performance.now();
    loaders[stack].prefetch();
    say("");
  } catch (error) {
    if (ticket !== state.shown) return;
    say(error.message);
    if (error.status === 0) setTimeout(() => ticket === state.shown && show(stack, index, { keepPart }), AGAIN_MS);
    return;
  }
  for (const one of beside) one.scrolled();
  showHeat(ticket);
}

// While a line is drawn, no other image comes under the pen.
function refuse() {
  label();
  return showHeat(state.shown);
}

// A line begins: what plays stops, and an image that is being loaded does not replace the one on display.
function stay() {
  cine.stop();
  if (flicker.on) flicker.stop();
  const [stack, index] = here();
  if (stack === state.stack && index === state.index) return;
  Object.assign(state, { stack, index, part: panes.main.image.part, shown: state.shown + 1 });
  label();
  say("");
}

function pane(image, changed) {
  const before = panes.main.image;
  panes.main.show(image);
  if (!before || changed) resetWindow();
  readout();
}

// The window with which a series opens: that of the hanging protocol on the series that was scored, else of the file.
function resetWindow() {
  const { windowWidth, windowCenter, invert } = panes.main.image;
  const hung = stackNow().scored && scan.hanging.window;
  const voi = hung ? { windowCenter: hung[0], windowWidth: hung[1] } : { windowWidth, windowCenter };
  panes.main.change({ voi, invert });
  state.preset = -1;
}

async function showHeat(ticket) {
  const wanted = scan.heatmap && (state.heat || state.contour) && stackNow().scored;
  if (!wanted) return panes.main.redraw();
  const { stack, index } = state;
  try {
    const answer = await maps.get("heat", stack, index);
    if (ticket !== state.shown) return;
    heatNow = { stack, index, answer };
    drawLegend(answer.about);
    by("viewer").dataset.heat = `${stack}/${index}`;
    panes.main.redraw();
  } catch (error) {
    say(error.message);
  }
}

// Texts around the image
function label() {
  const stack = stackNow();
  by("slice-words").textContent = `image ${state.index + 1} of ${stack.slices.length}`;
  by("series").value = String(state.stack);
  const slider = by("slice");
  slider.max = stack.slices.length - 1;
  slider.value = state.index;
  slider.setAttribute("aria-valuetext", `image ${state.index + 1} of ${stack.slices.length}`);
  labelEdges(by("pane-main"), directions(stack.slices[state.index].directions));
  for (const button of document.querySelectorAll("[data-worst]")) {
    button.setAttribute("aria-pressed", String(button.dataset.worst === `${state.stack}/${state.index}`));
  }
}

function readout() {
  const { voi, scale: size } = panes.main.viewport;
  const unit = stackNow().unit;
  const digits = voi.windowWidth < 10 ? 3 : 0;
  by("window-words").textContent =
    `level ${voi.windowCenter.toFixed(digits)} · width ${voi.windowWidth.toFixed(digits)}${unit ? ` ${unit}` : ""}`;
  by("zoom-words").textContent = `${Math.round((size / panes.main.image.about.reduced) * 100)} %`;
  const { reduced, exact, colour: inColour } = panes.main.image.about;
  by("reduced-words").textContent = [
    reduced > 1 ? `reduced 1 : ${reduced}; press e for full resolution at the centre` : state.part ? "a part at full resolution; press e for the whole image" : "",
    exact ? "" : "values quantised to 65 536 steps",
    inColour ? "stored without colour: brightness only" : "",
  ].filter(Boolean).join(" · ");
}

// Buttons of the most unusual images.
function offerWorst() {
  by("worst").hidden = scan.worst.length < 2;
  by("worst").append(...scan.worst.map(([stack, index]) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: index + 1, ariaLabel: `image ${index + 1}` });
    button.dataset.worst = `${stack}/${index}`;
    button.addEventListener("click", () => show(stack, index));
    return button;
  }));
}

// End the first look: ask the server for what the model saw, together with the outcome that is chosen until now.
async function endFirstLook() {
  if (scan.heatmap) return true;
  const { scan: path, csrf } = document.querySelector("[data-scan]").dataset;
  const chosen = document.querySelector("[name=outcome]:checked");
  try {
    const answer = await post(`${path}/heatmap`, { csrf, first_look: chosen ? chosen.value : "" });
    scan.worst = (await answer.json()).worst;
  } catch (error) {
    say(error.message);
    return false;
  }
  scan.heatmap = true;
  by("first-look")?.remove();
  offerWorst();
  document.querySelector(".similar")?.dispatchEvent(new Event("first-look-ended"));
  return true;
}

// Actions that need an image do nothing until there is one, by whichever key or button they are asked for.
function onImage(actions_) {
  const later = (act) => (...about) => (panes.main.image ? act(...about) : undefined);
  return Object.fromEntries(Object.entries(actions_).map(([name, act]) => [name, later(act)]));
}

// Actions of keys and buttons
function press(name, value) {
  const button = document.querySelector(`[data-do="${name}"]`);
  if (button) button.setAttribute("aria-pressed", String(value));
}

const actions = {
  async heat() {
    const first = !scan.heatmap;
    if (!(await endFirstLook())) return;
    state.heat = !state.heat;
    press("heat", state.heat);
    if (first && scan.worst.length) show(...scan.worst[0]);
    else showHeat(state.shown);
  },
  contour() {
    state.contour = !state.contour;
    press("contour", state.contour);
    showHeat(state.shown);
  },
  async side() {
    if (!(await endFirstLook())) return;
    await layouts.reconstruct();
    press("side", layouts.reconstructs);
  },
  layout(name) {
    return layouts.set(name);
  },
  link() {
    const one = focusedBeside() || beside.find(({ visible }) => visible);
    if (one && one.source && !one.isReconstruction) one.link(!one.linked);
    else say("Open a second pane first (2), with another series in it.");
  },
  series() {
    changeSeries((state.stack + 1) % scan.stacks.length);
  },
  play() {
    if (stackNow().slices.length > 1) cine.toggle();
    else say("This series has one image.");
  },
  ruler() {
    if (!view.focused().measure.mark()) tool(state.tool === "ruler" ? "window" : "ruler");
  },
  cross() {
    const spot = view.focused();
    spot.measure.cross(spot.measure.cursor ? null : middle(spot.pane));
  },
  erase() {
    if (state.tool === "ruler") for (const one of [measure, ...beside.map((each) => each.measure)]) one.clear();
    else regions.clear();
  },
  async worst() {
    if (!(await endFirstLook())) return;
    const places = scan.worst;
    const now = places.findIndex(([stack, index]) => stack === state.stack && index === state.index);
    if (places.length) show(...places[(now + 1) % places.length]);
  },
  ...onImage({
    async flicker() {
      if (!(await endFirstLook())) return;
      if (flicker.on) flicker.stop();
      else (state.part ? show(state.stack, state.index) : Promise.resolve()).then(() => regions.drawing || flicker.start());
    },
    fit() {
      panes.main.fit();
      resetWindow();
    },
    invert() {
      panes.main.change({ invert: !panes.main.viewport.invert });
    },
    preset() {
      const presets = [{ name: "of the file", centre: panes.main.image.windowCenter, width: panes.main.image.windowWidth }, ...stackNow().presets];
      state.preset = (state.preset + 1) % presets.length;
      const { name, centre, width } = presets[state.preset];
      panes.main.change({ voi: { windowCenter: centre, windowWidth: width } });
      say(`window ${name}`);
    },
    async part() {
      const image = panes.main.image;
      const ticket = state.shown;
      if (state.part) return show(state.stack, state.index).then(() => panes.main.fit());
      if (image.about.reduced === 1) return say("This image is already at full resolution.");
      const { x, y } = middle(panes.main);
      const edge = 2048;
      const query = [y - edge / 2, x - edge / 2, edge, edge].map((value) => Math.max(Math.round(value), 0)).join(",");
      say("loading full resolution ...");
      try {
        const url = `${scan.base}/pixels/${state.stack}/${state.index}?layout=${scan.layout}&box=${query}`;
        const found = cornerstoneImage(url, await fetchImage(url));
        if (ticket !== state.shown || regions.drawing) return say(""); // another image, or a line is drawn on this one
        const { voi } = panes.main.viewport;
        state.part = query;
        panes.main.show(located(found, state.stack, state.index, query));
        panes.main.fit();
        panes.main.change({ voi, scale: 1 });
        say("");
      } catch (error) {
        say(error.message);
      }
    },
  }),
  region() {
    tool(state.tool === "region" ? "window" : "region");
  },
};

function tool(name) {
  state.tool = name;
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.setAttribute("aria-pressed", String(button.dataset.tool === name));
  }
  for (const element of document.querySelectorAll(".pane")) element.dataset.tool = name;
}

function level(centre, width, pane_ = panes.main) {
  if (!pane_.image) return;
  const { voi } = pane_.viewport;
  const step = Math.max(Math.abs(voi.windowWidth), Math.abs(pane_.image.slope)) * 0.08;
  pane_.change({
    voi: {
      windowCenter: voi.windowCenter + centre * step,
      windowWidth: Math.max(voi.windowWidth + width * step, Math.abs(pane_.image.slope)),
    },
  });
}

// The point of the stored image in the middle of a pane.
function middle(pane_) {
  const box = pane_.element.getBoundingClientRect();
  return pane_.point({ pageX: box.left + box.width / 2 + scrollX, pageY: box.top + box.height / 2 + scrollY });
}

// Show another series of the study in the main pane, at the same place where positions tell it.
function changeSeries(number) {
  const [from, to] = [scan.stacks[state.stack], scan.stacks[number]];
  const shared = sharesOrigin(from, state.index, to);
  show(number, shared ? matching(from, state.index, to, { from: state.index, to: 0 }, true).index : begin(from, state.index, to));
}

function focusedBeside() {
  return beside.find(({ element }) => element.contains(document.activeElement));
}

const main = {
  draws: true,
  step: (by_) => show(state.stack, state.index + by_),
  count: () => stackNow().slices.length,
  lead: () => panes.main,
  get pane() {
    return panes.main;
  },
  get measure() {
    return measure;
  },
};

function spotOf(one) {
  const { pane: pane_, measure: measure_ } = one;
  const count = () => (one.isReconstruction ? main.count() : Math.max(main.count(), one.source.stack.slices.length));
  return { pane: pane_, measure: measure_, draws: false, step: (by_) => one.step(by_), count, lead: () => one.lead };
}

const view = {
  scan,
  state,
  panes,
  regions,
  actions,
  maps,
  show,
  stay,
  level,
  say,
  sayLength,
  stackNow,
  endFirstLook,
  changed() {
    for (const one of beside) one.offer();
    press("side", Boolean(layouts) && layouts.reconstructs);
  },
  original: (stack, index) => loaders[stack].get(index),
  // What keys move: the pane beside the scan that has the focus, else the scan.
  focused() {
    const one = focusedBeside();
    return one && one.pane.image ? spotOf(one) : main;
  },
};

function startPanes() {
  panes.main = new Pane(by("pane-main"), drawOver);
  panes.main.isStill = () => regions.drawing;
  const elements = { words: by("probe-words"), bar: by("scale-bar"), unit: () => stackNow().unit, changed: sayLength };
  measure = new Measure(panes.main, () => here().join("/"), elements);
  beside = [...document.querySelectorAll("[data-beside]")].map((element) => new Beside(element, view, sources));
  layouts = new Layouts(by("viewer"), beside, view);
  panes.main.element.addEventListener(window.cornerstone.EVENTS.IMAGE_RENDERED, () => {
    readout();
    measure.scale();
    for (const one of beside) one.followed();
  });
  bindMouse(by("pane-main"), view, main);
  for (const one of beside) bindMouse(one.element, view, spotOf(one));
}

function startButtons() {
  const onClick = (query, run) => {
    for (const button of document.querySelectorAll(query)) button.addEventListener("click", () => run(button.dataset));
  };
  onClick("[data-do]", (data) => actions[data.do]());
  onClick("[data-tool]", (data) => tool(data.tool));
  onClick("[data-earlier]", (data) => layouts.open(`earlier/${data.earlier}`));
  onClick("[data-layout-of]", (data) => actions.layout(data.layoutOf));
  by("series").addEventListener("change", (event) => changeSeries(Number(event.target.value)));
  by("slice").addEventListener("input", (event) => {
    cine.stop();
    show(state.stack, Number(event.target.value));
  });
  by("opacity").addEventListener("input", () => panes.main.redraw());
  by("speed").addEventListener("input", (event) => (by("speed-words").textContent = `${event.target.value}/s`));
}

function start() {
  startPanes();
  flicker = new Flicker(panes.main, imageNow, (on, words) => {
    press("flicker", on);
    say(words);
  });
  const next = () => show(state.stack, (state.index + 1) % stackNow().slices.length);
  cine = new Cine(next, () => Number(by("speed").value), (on) => {
    press("play", on);
    by("viewer").dataset.playing = on;
  });
  startButtons();
  offerWorst();
  bindKeys(view);
  tool("window");
  press("heat", state.heat);
  press("contour", state.contour);
  show(state.stack, state.index).then(() => layouts.begin());
}

if (scan.stacks.length) start();
