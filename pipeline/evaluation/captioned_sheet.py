"""Sheet of pictures with what each of them was asked to show beneath it."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from pipeline.evaluation import style

COLUMNS, SIDE, TEXT = 6, 1.55, 0.52  # pictures per row; inches of one, and of the text beneath it


def draw_captioned(images: np.ndarray, captions: Sequence[str], title: str) -> Figure:
    """Draw pictures [N, H, W] about [-1, 1], six per row, with their captions beneath, a part per line."""
    rows = max(1, -(-len(images) // COLUMNS))
    with mpl.rc_context(style.RC):
        figure = Figure(figsize=(COLUMNS * SIDE, rows * (SIDE + TEXT) + 0.4), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        grid = figure.subplots(rows, COLUMNS, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, image, caption in zip(grid.flat, images, captions, strict=False):
            axes.set_axis_on()
            axes.set(xticks=[], yticks=[])
            axes.imshow(image, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
            axes.set_xlabel(caption.replace(", ", "\n"), fontsize=7)
    return figure
