"""Sheet of generated images: real ones, generated ones, and the pairs that are most alike in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from pipeline.evaluation import style

COLUMNS, SIDE = 10, 0.92  # pictures per row; inches of one


@dataclass(frozen=True, slots=True)
class Strip:
    """One block of a sheet: a caption over its pictures, [N, H, W] about [-1, 1], so many in a row."""

    caption: str
    images: np.ndarray
    columns: int = COLUMNS

    @property
    def rows(self) -> int:
        """Rows of pictures."""
        return max(1, -(-len(self.images) // self.columns))


def draw_sheet(strips: Sequence[Strip], title: str) -> Figure:
    """Draw blocks of pictures under each other, at most ten per row, grey from -1 to 1."""
    heights = [strip.rows * SIDE + 0.26 for strip in strips]
    with mpl.rc_context(style.RC):
        figure = Figure(figsize=(COLUMNS * SIDE, sum(heights) + 0.4), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        parts = figure.subfigures(len(strips), 1, squeeze=False, height_ratios=heights)
        for part, strip in zip(parts[:, 0], strips, strict=True):
            part.suptitle(strip.caption, x=0.01, ha="left", fontsize=9, color=style.FAINT)
            _draw_strip(part.subplots(strip.rows, COLUMNS, squeeze=False), strip)
    return figure


def _draw_strip(grid: np.ndarray, strip: Strip) -> None:
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, image in zip(grid[:, : strip.columns].flat, strip.images, strict=False):
        axes.imshow(image, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")


def draw_sweep(option: str, rows: Sequence[Mapping[str, float]], floor: float) -> Figure:
    """Draw KID with its interval against the values of an option, and against CPU seconds per image.

    Args:
        option: name of the swept option.
        rows: `value`, `kid`, `low`, `high` and `seconds` (per image) of each drawing.
        floor: KID of real images against real ones.
    """
    with mpl.rc_context(style.RC):
        figure = Figure(figsize=(8.4, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        _draw_curve(left, option, [row["value"] for row in rows], rows, floor)
        _draw_curve(right, "CPU seconds per image", [row["seconds"] for row in rows], rows, floor)
        left.set_ylabel("KID (lower is better)")
        left.legend()
    return figure


def _draw_curve(
    axes: Axes, label: str, places: Sequence[float], rows: Sequence[Mapping[str, float]], floor: float
) -> None:
    kid = np.array([row["kid"] for row in rows])
    around = np.clip([kid - [row["low"] for row in rows], [row["high"] for row in rows] - kid], 0, None)
    axes.errorbar(places, kid, yerr=around, marker="o", color=style.MODEL, capsize=3, label="generated")
    axes.axhline(floor, color=style.BEST_CONTROL, linestyle="--", linewidth=1.2, label="real against real")
    if min(places) > 0 and max(places) / min(places) > 4:
        axes.set_xscale("log")
    axes.set_xlabel(label)


def encode_strip(images: np.ndarray) -> bytes:
    """Return ten pictures side by side as PNG, pixel by pixel: [N, H, W] about [-1, 1], two grey columns between."""
    grey = np.clip((images[:COLUMNS] + 1) * 127.5, 0, 255).astype(np.uint8)
    row = np.concatenate([np.pad(image, ((0, 0), (0, 2)), constant_values=128) for image in grey], axis=1)[:, :-2]
    file = BytesIO()
    Image.fromarray(row).save(file, format="PNG", optimize=True)
    return file.getvalue()


@dataclass(frozen=True, slots=True)
class Curve:
    """Points (CPU seconds per image, KID) of one sampler."""

    name: str
    points: tuple[tuple[float, float], ...]


def draw_curves(curves: Sequence[Curve], floor: float) -> Figure:
    """Draw KID against CPU seconds per image of several samplers, both logarithmic, each named beside its points."""
    with style.plot(7.2, 4.8) as (figure, axes):
        for number, curve in enumerate(curves):
            seconds, kid = np.array(sorted(curve.points)).T
            colour = style.MODEL_COLOURS[number % len(style.MODEL_COLOURS)]
            axes.plot(np.maximum(seconds, 1e-5), np.maximum(kid, 1e-4), marker="o", color=colour)
            axes.annotate(
                curve.name, (max(seconds[-1], 1e-5), max(kid[-1], 1e-4)), xytext=(6, 3), textcoords="offset points",
                fontsize=8, color=colour,
            )  # fmt: skip
        axes.axhline(floor, color=style.BEST_CONTROL, linestyle="--", linewidth=1.2, label="real against real")
        axes.set(xscale="log", yscale="log", xlabel="CPU seconds per image", ylabel="KID (lower is better)")
        axes.legend(loc="center left")
        return figure
