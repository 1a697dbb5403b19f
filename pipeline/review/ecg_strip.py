"""Electrocardiogram as a strip: leads under each other on paper of 25 mm/s and 10 mm/mV, as readers know it, in SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

MM_PER_SECOND, MM_PER_MILLIVOLT = 25.0, 10.0
ROW_MM, LEFT_MM, TOP_MM = 17.0, 12.0, 6.0
POINTS_PER_SECOND = 250  # of a drawn line; faster recordings are thinned to the extremes of each interval
HEAT_SECONDS = 0.04  # width of a bar of the heatmap: one small square
PAPER, FINE, COARSE, INK, HEAT = "#fffaf8", "#f3cfc8", "#e39d92", "#1c1c1c", "#E69F00"


def draw_strip(
    millivolts: np.ndarray, names: Sequence[str], rate_hz: float, heat: np.ndarray | None = None, title: str = ""
) -> str:
    """Return the SVG of a recording [leads, samples], each lead about its median.

    Args:
        millivolts: potentials.
        names: of the leads.
        rate_hz: samples per second.
        heat: how unusual each value is, [leads, any number of columns] over the same time, 0 to 1; None draws none.
        title: above the strip.
    """
    seconds = millivolts.shape[1] / rate_hz
    width, height = LEFT_MM + seconds * MM_PER_SECOND + 4, TOP_MM + len(names) * ROW_MM + 4
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.1f} {height:.1f}" width="{width:.0f}mm" '
        f'height="{height:.0f}mm" font-family="sans-serif">',
        _paper(width, height),
        f'<text x="{LEFT_MM}" y="4" font-size="3" fill="{INK}">{escape(title)}</text>',
    ]
    middles = [TOP_MM + (row + 0.5) * ROW_MM for row in range(len(names))]
    if heat is not None:  # all bars lie under all lines, since a high wave reaches into the row above
        parts += [bar for row, middle in enumerate(middles) for bar in _bars(heat[row], seconds, middle)]
    for row, (name, middle) in enumerate(zip(names, middles, strict=True)):
        parts.append(f'<text x="2" y="{middle + 1:.1f}" font-size="3.4" fill="{INK}">{escape(name or "?")}</text>')
        parts.append(_line(millivolts[row] - np.median(millivolts[row]), rate_hz, middle))
    return "\n".join([*parts, "</svg>"])


def _paper(width: float, height: float) -> str:
    """Return small squares of 1 mm and large ones of 5 mm."""
    squares = "".join(
        f'<pattern id="p{edge}" width="{edge}" height="{edge}" patternUnits="userSpaceOnUse">'
        f'<path d="M {edge} 0 L 0 0 0 {edge}" fill="none" stroke="{colour}" stroke-width="{line}"/></pattern>'
        for edge, colour, line in ((1, FINE, 0.1), (5, COARSE, 0.2))
    )
    sheets = "".join(
        f'<rect width="{width:.1f}" height="{height:.1f}" fill="{fill}"/>' for fill in (PAPER, "url(#p1)", "url(#p5)")
    )
    return f"<defs>{squares}</defs>{sheets}"


def _line(values: np.ndarray, rate_hz: float, middle: float) -> str:
    at, thinned = thin(values, rate_hz)
    x = LEFT_MM + at / rate_hz * MM_PER_SECOND
    y = middle - np.clip(thinned * MM_PER_MILLIVOLT, -2 * ROW_MM, 2 * ROW_MM)
    points = " ".join(f"{one:.2f},{other:.2f}" for one, other in zip(x, y, strict=True))
    return f'<polyline points="{points}" fill="none" stroke="{INK}" stroke-width="0.28" stroke-linejoin="round"/>'


def thin(values: np.ndarray, rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Return places and values of a line of few enough points that still reaches every peak: two per interval."""
    step = int(rate_hz // POINTS_PER_SECOND) * 2
    if step < 4:
        return np.arange(len(values)), values
    count = len(values) // step
    blocks = values[: count * step].reshape(count, step)
    ends = np.sort(np.stack([blocks.argmin(axis=1), blocks.argmax(axis=1)]), axis=0)
    at = (np.arange(count) * step + ends).T.ravel()
    return at, values[at]


def _bars(heat: np.ndarray, seconds: float, middle: float) -> list[str]:
    """Return a bar for each small square of time, as opaque as its most unusual value."""
    count = max(1, round(seconds / HEAT_SECONDS))
    borders = np.linspace(0, len(heat), count + 1).astype(int)
    levels = [float(heat[a:b].max()) if b > a else 0.0 for a, b in zip(borders, borders[1:], strict=False)]
    width = seconds * MM_PER_SECOND / count
    return [
        f'<rect x="{LEFT_MM + place * width:.2f}" y="{middle - ROW_MM / 2:.2f}" width="{width:.2f}" '
        f'height="{ROW_MM:.1f}" fill="{HEAT}" fill-opacity="{0.65 * level:.2f}"/>'
        for place, level in enumerate(levels)
        if level > 0.05
    ]
