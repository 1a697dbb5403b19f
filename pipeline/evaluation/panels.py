"""Panels of single slices: input, reconstruction, heatmap, lesion outline, and the detector's result in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.errors import EmptySelection
from pipeline.evaluation import style

SIDE = 1.9  # inches, of one picture
HEAT = "inferno"
SMOOTH = "bilinear"  # between pixels: a slice of 64 pixels is drawn four times as large
TITLES = {
    "input": "scan",
    "reconstruction": "as if it were normal",
    "heatmap": "anomaly map",
    "outline": "label",
}


@dataclass(frozen=True, slots=True)
class Panel:
    """One slice for display. It holds arrays only, so nothing can identify a patient.

    Attributes:
        image: float or uint8 [H, W], ready for display in grey.
        heatmap: float [H, W], higher = more anomalous.
        caption: one or two short lines, e.g. from `in_words`.
        reconstruction: like `image`, None if the method has no reconstruction.
        mask: bool [H, W] of the lesion, None if unknown.
        body: bool [H, W]; the heatmap is drawn inside it.
    """

    image: np.ndarray
    heatmap: np.ndarray
    caption: str = ""
    reconstruction: np.ndarray | None = None
    mask: np.ndarray | None = None
    body: np.ndarray | None = None


def in_words(score: float, p_value: float | None = None, flagged: bool | None = None, label: str = "") -> str:
    """Return a score in plain words: `flagged; 4 in 1000 normals score as high (p = 0.004), score 0.031`."""
    parts = [label] if label else []
    if flagged is not None:
        parts.append("flagged" if flagged else "not flagged")
    if p_value is not None:
        parts.append(f"{_rarity(p_value)} (p = {p_value:.2g})")
    return "\n".join([*parts, f"score {score:.4g}"])


def draw_panels(panels: Sequence[Panel], title: str = "") -> Figure:
    """Draw one row per slice; the heatmaps share one colour scale, so that rows are comparable.

    Columns without content in every row (no reconstruction, no mask) are left out. A colour bar and the outline's
    legend are below.

    Raises:
        EmptySelection: there are no panels.
    """
    if not panels:
        raise EmptySelection("There is no slice to draw. Choose at least one.")
    columns = _columns(panels)
    scale = _shared_scale(panels)
    with mpl.rc_context(style.RC):
        rows, width = np.shape(panels[0].image)
        height = SIDE * rows / width * len(panels) + (1.1 if title else 0.85)
        figure = Figure(figsize=(SIDE * len(columns) + 2.2, height), layout="constrained")
        cast(Any, figure.get_layout_engine()).set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
        grid = figure.subplots(len(panels), len(columns), squeeze=False)
        for row, panel in zip(grid, panels, strict=True):
            for axes, column in zip(row, columns, strict=True):
                _draw(axes, panel, column, scale)
            row[-1].text(
                1.06, 0.5, panel.caption, transform=row[-1].transAxes, va="center", fontsize=9, linespacing=1.6
            )
        for axes, column in zip(grid[0], columns, strict=True):
            axes.set_title(TITLES[column], loc="center", fontsize=10, pad=5)
        _explain(figure, grid, columns, scale)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def _columns(panels: Sequence[Panel]) -> list[str]:
    columns = ["input"]
    columns += ["reconstruction"] if any(panel.reconstruction is not None for panel in panels) else []
    columns += ["heatmap"]
    columns += ["outline"] if any(panel.mask is not None for panel in panels) else []
    return columns


def _explain(figure: Figure, grid: np.ndarray, columns: Sequence[str], scale: Normalize) -> None:
    """Put the colour bar under the last heatmap and the outline's legend under its column."""
    # an inset: a colour bar that takes its place from the column would make its pictures smaller than the others
    under = grid[-1, columns.index("heatmap")].inset_axes((0.05, -0.085, 0.9, 0.04))
    bar = figure.colorbar(ScalarMappable(scale, HEAT), cax=under, orientation="horizontal")
    bar.set_ticks(cast("list[float]", [scale.vmin, scale.vmax]), labels=["usual", "unusual"])
    under.tick_params(length=0, labelsize=8)
    bar.outline.set_visible(False)
    if "outline" in columns:
        line = Line2D([], [], color=style.CONTOUR, linewidth=1.6, label="lesion")
        grid[-1, -1].legend(handles=[line], loc="upper center", bbox_to_anchor=(0.5, 0.0), fontsize=8, handlelength=1.4)


def _draw(axes: Axes, panel: Panel, column: str, scale: Normalize) -> None:
    axes.set(xticks=[], yticks=[], facecolor="black")
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    low, high = np.quantile(panel.image, [0.005, 0.995])
    grey = {"cmap": "gray", "vmin": low, "vmax": max(high, low + 1e-9), "interpolation": SMOOTH}
    if column == "reconstruction":
        reconstruction = panel.reconstruction if panel.reconstruction is not None else np.zeros_like(panel.image)
        axes.imshow(reconstruction, **grey)
        return
    axes.imshow(panel.image, **grey)
    if column == "heatmap":
        strength = scale(np.asarray(panel.heatmap, float)).filled(0) if panel.body is None else _inside(panel, scale)
        opacity = np.clip(1.4 * strength, 0, 0.9)
        axes.imshow(strength, cmap=HEAT, vmin=0, vmax=1, alpha=opacity, interpolation=SMOOTH)
    if column == "outline" and panel.mask is not None and np.any(panel.mask):
        axes.contour(np.asarray(panel.mask, float), levels=[0.5], colors=[style.CONTOUR], linewidths=1.6)


def _inside(panel: Panel, scale: Normalize) -> np.ndarray:
    return np.where(cast(np.ndarray, panel.body), scale(np.asarray(panel.heatmap, float)).filled(0), 0.0)


def _shared_scale(panels: Sequence[Panel]) -> Normalize:
    """Return a scale from the median to the 99.7th percentile of all heatmaps inside the body, clipped for display
    only.
    """
    values = [p.heatmap[p.body] if p.body is not None else np.ravel(p.heatmap) for p in panels]
    low, high = np.quantile(np.concatenate(values), [0.5, 0.997])
    return Normalize(low, max(high, low + 1e-9), clip=True)


def _rarity(p_value: float) -> str:
    """Return `4 in 1000 normals score as high`, using the smallest power of ten that gives at least one."""
    base = 100 if p_value >= 0.01 else 10 ** int(np.ceil(-np.log10(p_value)))
    return f"{p_value * base:.0f} in {base:,} normals score as high".replace(",", " ")
