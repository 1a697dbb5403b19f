"""Sheet of the findings that a run learned from: each in its image, outlined, strongest first."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from pipeline.evaluation import style

COLUMNS, MOST, SIDE = 6, 24, 1.5  # pictures per row and on a sheet; inches of one


def draw_findings(images: np.ndarray, outlines: np.ndarray) -> Figure:
    """Draw the first findings, at most 24, with their number in all.

    Args:
        images: [N, H, W] in [-1, 1], strongest finding first; at least one.
        outlines: [N, H, W] in [0, 1]; the line is at 0.5.
    """
    count = min(len(images), MOST)
    rows = -(-count // COLUMNS)
    with mpl.rc_context(style.RC):
        figure = Figure(figsize=(SIDE * COLUMNS, SIDE * rows + 0.4), layout="constrained")
        grid = figure.subplots(rows, COLUMNS, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, image, outline in zip(grid.flat, images[:count], outlines[:count], strict=False):
            axes.imshow(image, cmap="gray", vmin=-1, vmax=1)
            axes.contour(outline, [0.5], colors=style.CONTOUR, linewidths=1.2)
        figure.suptitle(f"{count} of {len(images)} findings, strongest first", x=0.01, ha="left", fontsize=11)
    return figure
