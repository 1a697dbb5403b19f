// The scan page: slices, window, heatmap, reconstruction, regions.

import { bindKeys, bindMouse } from "./controls.js";
import { Flicker } from "./flicker.js";
import { Maps } from "./maps.js";
import { Slices, cornerstoneImage, fetchImage } from "./slices.js";
import { colour, heatCanvas, outline, scale } from "./heat.js";
import { Pane, directions, follow } from "./viewer.js";
import { Regions } from "./region.js";

const scan = JSON.parse(document.getElementById("scan-data").textContent);
const by = (id) => document.getElementById(id);
const state = {
  stack: scan.start[0],
  index: scan.start[1],
  tool: "window",
  heat: true,
  contour: scan.revealed,
  side: false,
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
const regions = new Regions(scan, () => [state.stack, state.index], () => panes.main.redraw());

function stackNow() {
  return scan.stacks[state.stack];
}

function say(text) {
  by("viewer-status").textContent = text;
}

function overlayOf(answer) {
  if (!overlays.has(answer)) overlays.set(answer, { canvas: heatCanvas(answer), path: outline(answer) });
  return overlays.get(answer);
}

let heatNow = null;
let flicker = null;

async function imageNow(original) {
  const { stack, index } = state;
  return original ? loaders[stack].get(index) : (await maps.reconstruction(stack, index)).image;
}

function drawOver(context, pane, pixel) {
  const plain = pane.image.reconstruction;
  if (heatNow && !plain && heatNow.stack === state.stack && heatNow.index === state.index) drawHeat(context, pixel);
  if (!plain) regions.draw(context, pixel);
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
  const ticket = (state.shown += 1);
  const changed = stack !== state.stack;
  state.stack = stack;
  state.index = Math.min(Math.max(index, 0), scan.stacks[stack].slices.length - 1);
  if (!keepPart) state.part = null;
  label();
  try {
    const image = await loaders[stack].get(state.index);
    if (ticket !== state.shown) return;
    pane(image, changed);
    by("viewer").dataset.ready = `${stack}/${state.index}`;
    if (!window.firstImage) window.firstImage = performance.now();
    loaders[stack].prefetch();
    say("");
  } catch (error) {
    if (ticket === state.shown) say(error.message);
    return;
  }
  showHeat(ticket);
  showSide(ticket);
}

function pane(image, changed) {
  const before = panes.main.image;
  panes.main.show(image);
  if (!before || changed) {
    panes.main.change({ voi: { windowWidth: image.windowWidth, windowCenter: image.windowCenter }, invert: image.invert });
    state.preset = -1;
  }
  readout();
}

async function showHeat(ticket) {
  const wanted = (state.heat || state.contour) && stackNow().scored;
  if (!wanted) return panes.main.redraw();
  const { stack, index } = state;
  try {
    const answer = await maps.get("heat", stack, index);
    if (ticket !== state.shown) return;
    heatNow = { stack, index, answer };
    legend(answer.about);
    by("viewer").dataset.heat = `${stack}/${index}`;
    panes.main.redraw();
  } catch (error) {
    say(error.message);
  }
}

async function showSide(ticket) {
  if (!state.side || !stackNow().scored) return;
  try {
    const { image, about } = await maps.reconstruction(state.stack, state.index);
    if (ticket !== state.shown) return;
    panes.side.show(image);
    follow(panes.main, panes.side, about.linked);
  } catch (error) {
    by("side-note").textContent = error.message;
  }
}

// Texts around the image
function label() {
  const stack = stackNow();
  by("slice-words").textContent = `${stack.title} · image ${state.index + 1} of ${stack.slices.length}`;
  const slider = by("slice");
  slider.max = stack.slices.length - 1;
  slider.value = state.index;
  slider.setAttribute("aria-valuetext", `image ${state.index + 1} of ${stack.slices.length}`);
  const letters = directions(stack.slices[state.index].directions);
  for (const edge of ["left", "right", "top", "bottom"]) by(`edge-${edge}`).textContent = letters ? letters[edge] : "";
  for (const button of document.querySelectorAll("[data-stack]")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.stack) === state.stack));
  }
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

function legend(about) {
  const canvas = by("legend-bar");
  const context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x += 1) {
    context.fillStyle = `rgb(${colour(x / canvas.width).join(",")})`;
    context.fillRect(x, 0, 1, canvas.height);
  }
  const { begin, end } = scale(about);
  const short = (value) => Number(value.toPrecision(2)).toString();
  by("legend-low").textContent = short(begin);
  by("legend-high").textContent = short(end);
  by("legend-line").textContent = about.threshold === null ? "colours: range of this image" :
    `outline: ${short(about.threshold)}, exceeded by ${short(about.alpha * 100)} % of normal pixels`;
}

// Actions of keys and buttons
function press(name, value) {
  const button = document.querySelector(`[data-do="${name}"]`);
  if (button) button.setAttribute("aria-pressed", String(value));
}

const actions = {
  heat() {
    state.heat = !state.heat;
    press("heat", state.heat);
    showHeat(state.shown);
  },
  contour() {
    state.contour = !state.contour;
    press("contour", state.contour);
    showHeat(state.shown);
  },
  side() {
    state.side = !state.side;
    press("side", state.side);
    by("pane-side").hidden = !state.side;
    by("viewer").classList.toggle("two", state.side);
    requestAnimationFrame(() => showSide(state.shown));
  },
  flicker() {
    if (flicker.on) flicker.stop();
    else (state.part ? show(state.stack, state.index) : Promise.resolve()).then(() => flicker.start());
  },
  fit() {
    panes.main.fit();
    const { windowWidth, windowCenter, invert } = panes.main.image;
    panes.main.change({ voi: { windowWidth, windowCenter }, invert });
    state.preset = -1;
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
  worst() {
    const places = scan.worst;
    const now = places.findIndex(([stack, index]) => stack === state.stack && index === state.index);
    if (places.length) show(...places[(now + 1) % places.length]);
  },
  async part() {
    const image = panes.main.image;
    if (state.part) return show(state.stack, state.index).then(() => panes.main.fit());
    if (image.about.reduced === 1) return say("This image is already at full resolution.");
    const box = by("pane-main").getBoundingClientRect();
    const { x, y } = panes.main.point({ pageX: box.left + box.width / 2 + scrollX, pageY: box.top + box.height / 2 + scrollY });
    const edge = 2048;
    const query = [y - edge / 2, x - edge / 2, edge, edge].map((value) => Math.max(Math.round(value), 0)).join(",");
    say("loading full resolution ...");
    try {
      const url = `${scan.base}/pixels/${state.stack}/${state.index}?layout=${scan.layout}&box=${query}`;
      const found = cornerstoneImage(url, await fetchImage(url));
      const { voi } = panes.main.viewport;
      state.part = query;
      panes.main.show(found);
      panes.main.fit();
      panes.main.change({ voi, scale: 1 });
      say("");
    } catch (error) {
      say(error.message);
    }
  },
  region() {
    tool(state.tool === "region" ? "window" : "region");
  },
};

function tool(name) {
  state.tool = name;
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.setAttribute("aria-pressed", String(button.dataset.tool === name));
  }
  by("pane-main").dataset.tool = name;
}

function level(centre, width) {
  const { voi } = panes.main.viewport;
  const step = Math.max(Math.abs(voi.windowWidth), Math.abs(panes.main.image.slope)) * 0.08;
  panes.main.change({
    voi: {
      windowCenter: voi.windowCenter + centre * step,
      windowWidth: Math.max(voi.windowWidth + width * step, Math.abs(panes.main.image.slope)),
    },
  });
}

function start() {
  panes.main = new Pane(by("pane-main"), drawOver);
  panes.side = new Pane(by("pane-side"), () => {});
  flicker = new Flicker(panes.main, imageNow, (on, words) => {
    press("flicker", on);
    say(words);
  });
  panes.main.element.addEventListener(window.cornerstone.EVENTS.IMAGE_RENDERED, () => {
    readout();
    if (state.side && panes.side.image) {
      follow(panes.main, panes.side, !panes.side.image.own);
    }
  });
  for (const button of document.querySelectorAll("[data-do]")) {
    button.addEventListener("click", () => actions[button.dataset.do]());
  }
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.addEventListener("click", () => tool(button.dataset.tool));
  }
  for (const button of document.querySelectorAll("[data-stack]")) {
    button.addEventListener("click", () => show(Number(button.dataset.stack), 0));
  }
  for (const button of document.querySelectorAll("[data-worst]")) {
    button.addEventListener("click", () => show(...button.dataset.worst.split("/").map(Number)));
  }
  by("slice").addEventListener("input", (event) => show(state.stack, Number(event.target.value)));
  by("opacity").addEventListener("input", () => panes.main.redraw());
  const view = { scan, state, panes, regions, actions, show, level };
  bindMouse(by("pane-main"), view);
  bindKeys(view);
  tool("window");
  press("heat", state.heat);
  press("contour", state.contour);
  show(state.stack, state.index);
}

if (scan.stacks.length) start();
