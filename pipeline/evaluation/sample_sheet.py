"""Sheet of generated images: real ones, generated ones, and the pairs that are most alike in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from PIL import Image

from pipeline.evaluation import style

COLUMNS, SIDE = 10, 0.92  # pictures per row; inches of one
POINT = ("value", "kid", "low", "high", "seconds")  # of a sweep; all else are shares
AXES_POINTS = (430, 290)  # width and height of the plane of `draw_curves`, in points
LETTER, LINE = 5.2, 10.0  # width of a letter and height of a name in it, in points


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
    """Draw KID with its interval against the values of an option, and against CPU seconds per image; and shares.

    Args:
        option: name of the swept option.
        rows: `value`, `kid`, `low`, `high` and `seconds` (per image) of each drawing; every other number is a share in
            0..1, and drawn by its name in a third part.
        floor: KID of real images against real ones.
    """
    shares = [name for name in rows[0] if name not in POINT]
    with mpl.rc_context(style.RC):
        figure = Figure(figsize=(12.4 if shares else 8.4, 3.6), layout="constrained")
        left, right, *rest = figure.subplots(1, 3 if shares else 2)
        right.sharey(left)
        places = [row["value"] for row in rows]
        _draw_curve(left, option, places, rows, floor)
        _draw_curve(right, "CPU seconds per image", [row["seconds"] for row in rows], rows, floor)
        left.set_ylabel("KID (lower is better)")
        left.legend()
        for axes in rest:
            for name, colour in zip(shares, style.MODEL_COLOURS, strict=False):
                axes.plot(places, [row[name] for row in rows], marker="o", color=colour, label=name)
            axes.set(ylim=(-0.02, 1.02), ylabel="share (higher is better)")
            _label_places(axes, option, places)
            axes.legend()
    return figure


def _draw_curve(
    axes: Axes, label: str, places: Sequence[float], rows: Sequence[Mapping[str, float]], floor: float
) -> None:
    kid = np.array([row["kid"] for row in rows])
    around = np.clip([kid - [row["low"] for row in rows], [row["high"] for row in rows] - kid], 0, None)
    axes.errorbar(places, kid, yerr=around, marker="o", color=style.MODEL, capsize=3, label="generated")
    axes.axhline(floor, color=style.BEST_CONTROL, linestyle="--", linewidth=1.2, label="real against real")
    _label_places(axes, label, places)


def _label_places(axes: Axes, label: str, places: Sequence[float]) -> None:
    """Name the horizontal axis, which is logarithmic where the places span more than a factor of four."""
    if min(places) > 0 and max(places) / min(places) > 4:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
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
    """Draw KID against CPU seconds per image of several samplers, both logarithmic, each named beside its points.

    A floor far below all of them is written in the legend and not drawn, since it would take most of the axis.
    """
    with style.plot(7.2, 4.8) as (figure, axes):
        lowest = min(kid for curve in curves for _, kid in curve.points)
        axes.set(xscale="log", yscale="log", xlabel="CPU seconds per image", ylabel="KID (lower is better)")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        for number, curve in enumerate(curves):
            seconds, kid = np.array(sorted(curve.points)).T
            colour = style.MODEL_COLOURS[number % len(style.MODEL_COLOURS)]
            axes.plot(np.maximum(seconds, 1e-5), np.maximum(kid, 1e-4), marker="o", color=colour)
        dash: dict[str, Any] = {"color": style.BEST_CONTROL, "linestyle": "--", "linewidth": 1.2}
        if floor > lowest / 5:
            axes.axhline(floor, label="real against real", **dash)
        else:
            axes.plot([], [], label=f"real against real: {floor:.3f}, below this axis", **dash)
        axes.margins(x=0.14)
        _name_curves(axes, curves)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.1))
        return figure


def _name_curves(axes: Axes, curves: Sequence[Curve]) -> None:
    """Write each name beside its slowest point, and higher where it would cover a name that is written already."""
    ends = [max(curve.points) for curve in curves]
    across, up = (np.log10(np.maximum([end[axis] for end in ends], 1e-5)) for axis in (0, 1))
    ranges = [np.ptp(np.log10(limits)) for limits in (axes.get_xlim(), axes.get_ylim())]
    left, low = across / ranges[0] * AXES_POINTS[0], up / ranges[1] * AXES_POINTS[1]
    written: list[tuple[float, float, float]] = []  # left edge, right edge and height of each name, in points
    for number in np.argsort(low):
        name, begin, height = curves[number].name, left[number], low[number]
        end = begin + LETTER * len(name)
        for other in sorted(written, key=lambda one: one[2]):
            if begin < other[1] and other[0] < end and abs(height - other[2]) < LINE:
                height = other[2] + LINE
        written.append((begin, end, height))
        axes.annotate(
            name, ends[number], xytext=(6, 3 + height - low[number]), textcoords="offset points",
            fontsize=8, color=style.MODEL_COLOURS[number % len(style.MODEL_COLOURS)],
        )  # fmt: skip
