"""Style of all figures: one palette, one set of sizes, one way to save."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito (2008): distinguishable with every common colour vision deficiency, and in grey.
MODEL = "#0072B2"
ABNORMAL = "#D55E00"
NORMAL = "#0072B2"
CONTOUR = "#56B4E9"
CONTROL_GREY = "#BDBDBD"
BEST_CONTROL = "#6E6E6E"
INK = "#222222"
FAINT = "#8A8A8A"
MODEL_COLOURS = (MODEL, "#009E73", "#CC79A7", "#E69F00")

RC = {
    "figure.facecolor": "white",
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#ECECEC",
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


@contextmanager
def plot(width: float = 4.8, height: float = 4.4) -> Iterator[tuple[Figure, Axes]]:
    """Yield a figure of the given inches and its axes, in the house style."""
    with mpl.rc_context(RC):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def save_png(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG without time or program stamps, so that equal figures give equal files; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(RC):
        figure.savefig(path, format="png", metadata={"Software": None})
    return path
