// Mouse and keyboard controls of the scan view.

import { bind } from "./keys.js";

export function bindMouse(element, view) {
  const { state, panes, regions, show, level } = view;
  let last = null;
  element.addEventListener("pointerdown", (event) => {
    if (event.target.closest("button, input")) return;
    element.setPointerCapture(event.pointerId);
    element.focus({ preventScroll: true });
    last = { x: event.pageX, y: event.pageY, tool: event.button === 1 ? "pan" : event.button === 2 ? "zoom" : state.tool };
    if (last.tool === "region") regions.begin(panes.main.point(event));
  });
  element.addEventListener("pointermove", (event) => {
    if (!last || !panes.main.image) return;
    const moved = { x: event.pageX - last.x, y: event.pageY - last.y };
    Object.assign(last, { x: event.pageX, y: event.pageY });
    const viewport = panes.main.viewport;
    if (last.tool === "region") regions.extend(panes.main.point(event));
    else if (last.tool === "zoom") panes.main.zoom(1 - moved.y / 200);
    else if (last.tool === "pan") {
      const { x, y } = viewport.translation;
      panes.main.change({ translation: { x: x + moved.x / viewport.scale, y: y + moved.y / viewport.scale } });
    } else level(moved.y / 16, moved.x / 16);
  });
  element.addEventListener("pointerup", () => {
    if (last && last.tool === "region") regions.end();
    last = null;
  });
  element.addEventListener("contextmenu", (event) => event.preventDefault());
  let turned = 0;
  element.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      if (event.ctrlKey || view.scan.stacks[state.stack].slices.length === 1) return panes.main.zoom(event.deltaY < 0 ? 1.1 : 1 / 1.1);
      turned += event.deltaY;
      const steps = Math.trunc(turned / 40);
      if (steps) show(state.stack, state.index + Math.sign(steps));
      if (steps) turned = 0;
    },
    { passive: false },
  );
}

export function bindKeys(view) {
  const { scan, state, panes, regions, actions, show, level } = view;
  const step = (by_) => () => show(state.stack, state.index + by_);
  bind("ArrowDown", "Images", "next image", step(1));
  bind("ArrowUp", "Images", "previous image", step(-1));
  bind("PageDown", "Images", "ten further", step(10));
  bind("PageUp", "Images", "ten back", step(-10));
  bind("Home", "Images", "first image", () => show(state.stack, 0));
  bind("End", "Images", "last image", () => show(state.stack, Infinity));
  bind("x", "Images", "next most unusual image", actions.worst);
  bind("v", "Images", "next series", () => show((state.stack + 1) % scan.stacks.length, 0));
  bind("h", "Differences", "heatmap on or off", actions.heat);
  bind("t", "Differences", "outline on or off", actions.contour);
  bind("r", "Differences", "reconstruction side by side", actions.side);
  bind("f", "Differences", "flicker between original and reconstruction", actions.flicker);
  bind([",", "."], "Differences", "less or more heatmap opacity", (event) => {
    by("opacity").value = Number(by("opacity").value) + (event.key === "," ? -10 : 10);
    panes.main.redraw();
  });
  bind("w", "Window", "next window", actions.preset);
  bind(["ArrowLeft", "ArrowRight"], "Window", "brighter, darker", (event) => level(event.key === "ArrowLeft" ? -1 : 1, 0));
  bind(["[", "]"], "Window", "narrower, wider", (event) => level(0, event.key === "[" ? -1 : 1));
  bind("i", "Window", "invert", actions.invert);
  bind(["+", "-"], "Window", "larger, smaller", (event) => panes.main.zoom(event.key === "+" ? 1.2 : 1 / 1.2));
  bind("0", "Window", "reset the view", actions.fit);
  bind("e", "Window", "full resolution of a large image, here", actions.part);
  bind("g", "Decision", "draw a region (drag)", actions.region);
  bind("Backspace", "Decision", "erase the region", () => regions.clear());
}
