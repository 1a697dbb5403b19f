"""Curves of answers with targets: PSNR and perceptual distance against the strength of a degradation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.evaluation import style
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.paired_quality import PairedRow


def draw_levels(label: str, levels: Sequence[float], rows: Mapping[str, Sequence[PairedRow]]) -> Figure:
    """Draw both measures with their intervals against the levels, one line per answer.

    Args:
        label: of the horizontal axis.
        levels: ascending.
        rows: of each answer, by name, one per level; the last one is the model's and is drawn in its colour.
    """
    colours = [style.CONTROL_GREY, style.BEST_CONTROL, *style.MODEL_COLOURS[1:]]
    with mpl.rc_context(style.RC):
        figure = Figure(figsize=(8.4, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        for number, (name, answers) in enumerate(rows.items()):
            colour = style.MODEL if number == len(rows) - 1 else colours[number % len(colours)]
            _draw_line(left, levels, [one.psnr for one in answers], name, colour)
            _draw_line(right, levels, [one.perceptual for one in answers], name, colour)
        left.set(xlabel=label, ylabel="PSNR in dB (higher is better)")
        right.set(xlabel=label, ylabel="perceptual distance (lower is better)")
        left.legend()
    return figure


def _draw_line(axes: Axes, levels: Sequence[float], values: Sequence[Estimate], name: str, colour: str) -> None:
    middle = np.array([one.value for one in values])
    low = np.array([one.value if one.low is None else one.low for one in values])
    high = np.array([one.value if one.high is None else one.high for one in values])
    around = np.clip([middle - low, high - middle], 0, None)
    axes.errorbar(levels, middle, yerr=around, marker="o", capsize=3, color=colour, label=name)
