"""Picture of accuracy against the number of labels, a line per way to classify."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from pipeline.evaluation import style
from pipeline.evaluation.bootstrap import Estimate

COLOURS = (style.CONTROL_GREY, style.BEST_CONTROL, "#E69F00", "#CC79A7", "#009E73", style.MODEL)


def draw_label_curve(rows: Sequence[tuple[str, int, Estimate]], title: str) -> Figure:
    """Draw (name, labels, accuracy) with intervals; the last name is the model's."""
    names = list(dict.fromkeys(name for name, _, _ in rows))
    with style.plot(8.6, 4.2) as (figure, axes):
        for place, name in enumerate(names):
            own = sorted(((labels, accuracy) for one, labels, accuracy in rows if one == name), key=lambda row: row[0])
            x = [labels * (1 + 0.012 * (place - len(names) / 2)) for labels, _ in own]
            y = [accuracy.value for _, accuracy in own]
            low = [accuracy.value - (accuracy.low or accuracy.value) for _, accuracy in own]
            high = [(accuracy.high or accuracy.value) - accuracy.value for _, accuracy in own]
            colour = COLOURS[place % len(COLOURS)]
            axes.errorbar(x, y, yerr=[low, high], color=colour, marker="o", markersize=4, capsize=2, label=name)
        axes.set_xscale("log")
        axes.set_xticks(sorted({labels for _, labels, _ in rows}))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("labelled recordings")
        axes.set_ylabel("accuracy, 95 % interval over patients")
        axes.set_title(title)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8)
    return figure
