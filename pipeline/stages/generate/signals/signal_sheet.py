"""Picture of recordings and their units: spectrogram, phonemes, units, and the same words in another style."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.evaluation import style
from pipeline.methods.vq_vae import VectorQuantisedAutoencoder
from pipeline.stages.generate.signals.restyle_speech import Voices
from pipeline.stages.generate.signals.signal_units import Written, rows_of

PICTURED = 2  # recordings, of two speakers where there are


def draw_units(method: VectorQuantisedAutoencoder, voices: Voices, written: Written, title: str) -> Figure:
    """Draw recordings with their truth and units, their reconstructions, and each in the other's style."""
    first = 0
    second = next((n for n, name in enumerate(voices.speakers) if name != voices.speakers[first]), first)
    chosen = [first, second][:PICTURED]
    images = voices.images[chosen]
    again = rows_of(method.restyle(images, images).cpu(), voices.samples, voices.rows)
    other = rows_of(method.restyle(images, images.flip(0)).cpu(), voices.samples, voices.rows)
    frames = rows_of(images, voices.samples, voices.rows)
    captions = ("Recording", "Its units", "Decoded", "Decoded in the other's style")
    with mpl.rc_context({**style.RC, "axes.grid": False}):
        figure = Figure(figsize=(9.2, 6.4), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        grid = figure.subplots(4, len(chosen), squeeze=False, height_ratios=[3, 1, 3, 3])
        for column, place in enumerate(chosen):
            _draw_spectrogram(grid[0, column], frames[column], voices.units[place])
            _draw_codes(grid[1, column], written, place)
            _draw_spectrogram(grid[2, column], again[column])
            _draw_spectrogram(grid[3, column], other[column])
        for row, caption in enumerate(captions):
            grid[row, 0].set_title(caption, fontsize=9, color=style.FAINT)
    return figure


def _draw_spectrogram(axes: Axes, frames: np.ndarray, units: object = ()) -> None:
    axes.imshow(frames.T, origin="lower", aspect="auto", cmap="magma", vmin=-1, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    names = list(units)  # type: ignore[call-overload]
    borders = [n for n in range(1, len(names)) if names[n] != names[n - 1]]
    for begin, end in zip([0, *borders], [*borders, len(names)], strict=True):
        if names and names[begin]:
            axes.axvline(begin, color="white", linewidth=0.6)
            axes.text((begin + end) / 2, len(frames[0]) - 3, names[begin], color="white", fontsize=8, ha="center")


def _draw_codes(axes: Axes, written: Written, place: int) -> None:
    units = np.zeros((1, written.vectors.shape[1])) if written.units is None else written.units[place][None]
    axes.imshow(units * 37 % 20, aspect="auto", cmap="tab20", interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
