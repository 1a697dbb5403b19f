// Mouse and keyboard controls of the scan view.

import { bind } from "./keys.js";

// Bind the mouse to a pane. `spot` has the `pane`, the pane `lead()` whose view a drag changes, `measure`, `step(by)`,
// `count()` of images, and `draws`: whether regions are drawn here.
export function bindMouse(element, view, spot) {
  const { state, regions, level } = view;
  let last = null;
  element.addEventListener("pointerdown", (event) => {
    if (last || regions.drawing) return; // a further finger: the first one goes on
    if (event.target.closest("button, input, select, a") || !spot.pane.image) return;
    element.setPointerCapture(event.pointerId);
    element.focus({ preventScroll: true });
    const tool = event.button === 1 ? "pan" : event.button === 2 ? "zoom" : state.tool;
    last = { pointer: event.pointerId, x: event.pageX, y: event.pageY, tool: tool === "region" && !spot.draws ? "window" : tool };
    if (last.tool === "region") {
      view.stay();
      regions.begin(spot.pane.point(event));
    }
    if (last.tool === "ruler") spot.measure.begin(spot.pane.point(event));
  });
  element.addEventListener("pointermove", (event) => {
    if (!spot.pane.image || (last && last.pointer !== event.pointerId)) return;
    spot.measure.probe(spot.pane.point(event));
    if (!last) return;
    const moved = { x: event.pageX - last.x, y: event.pageY - last.y };
    Object.assign(last, { x: event.pageX, y: event.pageY });
    const lead = spot.lead();
    if (last.tool === "region") regions.extend(spot.pane.point(event));
    else if (last.tool === "ruler") spot.measure.extend(spot.pane.point(event));
    else if (last.tool === "zoom") lead.zoom(1 - moved.y / 200);
    else if (last.tool === "pan" && lead.image) {
      const viewport = lead.viewport;
      const { x, y } = viewport.translation;
      lead.change({ translation: { x: x + moved.x / viewport.scale, y: y + moved.y / viewport.scale } });
    } else level(moved.y / 16, moved.x / 16, lead);
  });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
    element.addEventListener(name, (event) => {
      if (!last || last.pointer !== event.pointerId) return;
      if (last.tool === "region") regions.end();
      if (last.tool === "ruler") spot.measure.end();
      last = null;
    });
  }
  element.addEventListener("pointerleave", () => spot.pane.image && spot.measure.probe(null));
  element.addEventListener("contextmenu", (event) => event.preventDefault());
  let turned = 0;
  element.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      if (!spot.pane.image || regions.drawing) return;
      if (event.ctrlKey || spot.count() === 1) return spot.lead().zoom(event.deltaY < 0 ? 1.1 : 1 / 1.1);
      turned += event.deltaY;
      const steps = Math.trunc(turned / 40);
      if (steps) spot.step(Math.sign(steps));
      if (steps) turned = 0;
    },
    { passive: false },
  );
}

export function bindKeys(view) {
  const { state, panes, actions, show, level } = view;
  const step = (by_) => () => view.focused().step(by_);
  bind("ArrowDown", "Images", "next image", step(1));
  bind("ArrowUp", "Images", "previous image", step(-1));
  bind("PageDown", "Images", "ten further", step(10));
  bind("PageUp", "Images", "ten back", step(-10));
  bind("Home", "Images", "first image", () => show(state.stack, 0));
  bind("End", "Images", "last image", () => show(state.stack, Infinity));
  bind("x", "Images", "next most unusual image", actions.worst);
  bind("v", "Images", "next series", actions.series);
  bind("p", "Images", "play or stop", actions.play);
  bind("1", "Panes", "the scan alone", () => actions.layout("1x1"));
  bind("2", "Panes", "two panes", () => actions.layout("1x2"));
  bind("4", "Panes", "four panes", () => actions.layout("2x2"));
  bind("y", "Panes", "link the pane beside the scan, or unlink it", actions.link);
  bind("h", "Differences", "heatmap on or off; ends the first look", actions.heat);
  bind("t", "Differences", "outline on or off", actions.contour);
  bind("r", "Differences", "reconstruction beside the scan", actions.side);
  bind("f", "Differences", "flicker between original and reconstruction", actions.flicker);
  bind([",", "."], "Differences", "less or more heatmap opacity", (event) => {
    const opacity = document.getElementById("opacity");
    opacity.value = Number(opacity.value) + (event.key === "," ? -10 : 10);
    panes.main.redraw();
  });
  bind("w", "Window", "next window", actions.preset);
  bind(["ArrowLeft", "ArrowRight"], "Window", "brighter, darker", (event) => level(event.key === "ArrowLeft" ? -1 : 1, 0));
  bind(["[", "]"], "Window", "narrower, wider", (event) => level(0, event.key === "[" ? -1 : 1));
  bind("i", "Window", "invert", actions.invert);
  bind(["+", "-"], "Window", "larger, smaller", (event) => view.focused().lead().zoom(event.key === "+" ? 1.2 : 1 / 1.2));
  bind("0", "Window", "reset the view", actions.fit);
  bind("e", "Window", "full resolution of a large image, here", actions.part);
  bind("m", "Measure", "ruler: drag, or set its ends at the cross", actions.ruler);
  bind("b", "Measure", "cross with the value of a pixel, or none", actions.cross);
  bind(["Shift+ArrowUp", "Shift+ArrowDown"], "Measure", "move the cross up, down", (event) => nudge(event, 0, event.key === "ArrowUp" ? -1 : 1));
  bind(["Shift+ArrowLeft", "Shift+ArrowRight"], "Measure", "move the cross left, right", (event) => nudge(event, event.key === "ArrowLeft" ? -1 : 1, 0));
  bind("g", "Decision", "draw a region (drag)", actions.region);
  bind("Backspace", "Decision", "erase the region, or with its tool the ruler", actions.erase);

  function nudge(_, columns, rows) {
    const { measure } = view.focused();
    if (measure.cursor) measure.cross({ x: measure.cursor.x + columns, y: measure.cursor.y + rows });
  }
}
