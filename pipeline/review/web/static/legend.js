// The legend of a heatmap: the colours, and the shares of normal pixels that they stand for.

import { colour } from "./heat.js";

export function percent(share) {
  return `${Number((share * 100).toPrecision(2))} %`;
}

export function drawLegend(about) {
  const canvas = document.getElementById("legend-bar");
  const context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x += 1) {
    context.fillStyle = `rgb(${colour(x / canvas.width).join(",")})`;
    context.fillRect(x, 0, 1, canvas.height);
  }
  document.getElementById("legend-line").textContent = words(about);
  const ticks = about.ticks.map((share) => Object.assign(document.createElement("span"), { textContent: percent(share) }));
  document.getElementById("legend-ticks").replaceChildren(...ticks);
}

function words({ common, threshold, alpha }) {
  if (!common) return "colours: this image's own range, so that a normal one glows too";
  return threshold === null ? "normal pixels that are higher" : `normal pixels that are higher; outline: ${percent(alpha)}`;
}
