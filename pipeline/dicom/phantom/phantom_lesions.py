"""Lesions of known position, size, contrast and sharpness, and their exact masks.

The mask covers the pixels where the lesion has at least half of its full effect. A lesion changes only the noise-free
slice, so the same patient without it (the healthy twin: same seed, no lesion) differs in no other pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from pipeline.dicom.phantom.brain import Rendered
from pipeline.dicom.phantom.drawing import Array, Ellipse, Field, grid, ramp, section


class LesionKind(StrEnum):
    """Difference between a lesion and the tissue that it replaces."""

    BRIGHTER = "brighter"
    DARKER = "darker"
    SMOOTHER = "smoother"
    DISPLACED = "displaced"


ON_DETAIL = (LesionKind.SMOOTHER, LesionKind.DISPLACED)
# grade: (radius in half fields of view, contrast as a share of the modality's full contrast)
GRADES = {1: (0.085, 0.45), 2: (0.120, 0.70), 3: (0.165, 1.00)}
FULL_CONTRAST = {
    ("CT", "abdomen"): 85.0,
    ("CT", "head"): 32.0,
    ("MR", "head"): 0.34,
    ("CR", "chest"): 0.19,
    ("DX", "chest"): 0.19,
    ("US", "breast"): 0.34,
}


@dataclass(frozen=True, slots=True)
class Lesion:
    """One lesion, in the patient's coordinates.

    Attributes:
        grade: 1 (subtle) .. 3 (obvious).
        x, y: centre in [-1, 1]; z: centre in [0, 1].
        radius: mean half axis; a, b: half axes; height: half length along z.
        contrast: signed change at full effect, HU or the modality's rendered unit; 0 for smoother and displaced.
        edge: width of the border, small = sharp.
        shift: displacement (x, y) of a displaced lesion's content.
    """

    kind: LesionKind
    grade: int
    x: float
    y: float
    z: float
    radius: float
    a: float
    b: float
    angle: float
    height: float
    contrast: float
    edge: float
    shift: tuple[float, float]

    def alpha(self, z: float, size: int, outline: Field) -> Array:
        """Coverage [size, size] in [0, 1] of the slice at `z`; `outline` makes the border irregular."""
        reach = section(z, self.z, self.height)
        if reach < 0.2:
            return np.zeros((size, size), np.float32)
        depth = Ellipse(self.x, self.y, self.a * reach, self.b * reach, self.angle).depth(*grid(size))
        return ramp(depth + 0.12 * self.radius * outline.at(z, size), max(self.edge, 2.0 / size))


def draw_lesion(
    rng: np.random.Generator, kind: LesionKind, grade: int, full: float, rendered: Rendered, z: float, pitch: float
) -> Lesion:
    """Draw a lesion of `kind` and `grade` somewhere in the organ of the slice at `z`; `full` is the contrast of
    grade 3, `pitch` the slice distance."""
    radius, share = GRADES[grade]
    u = rng.random(9).tolist()
    # lesions that only show on detail must be larger to be as conspicuous
    radius *= (0.85 + 0.3 * u[0]) * (1.25 if kind in ON_DETAIL else 1.0)
    stretch = 0.8 + 0.4 * u[1]
    x, y = _place(rng, kind, rendered, radius)
    sign = {LesionKind.BRIGHTER: 1.0, LesionKind.DARKER: -1.0}.get(kind, 0.0)
    direction, far = 2 * np.pi * u[5], 1.6 * radius * (0.7 + 0.3 * share)
    return Lesion(
        kind=kind, grade=grade, x=x, y=y, z=z, radius=radius, a=radius * stretch, b=radius / stretch,
        angle=np.pi * u[2], height=max(radius * 0.9, 0.75 * pitch), edge=0.02 + 0.08 * u[4],
        contrast=sign * share * full * (0.85 + 0.3 * u[3]),
        shift=(float(far * np.cos(direction)), float(far * np.sin(direction))),
    )  # fmt: skip


def _place(rng: np.random.Generator, kind: LesionKind, rendered: Rendered, radius: float) -> tuple[float, float]:
    """Return a centre well inside the organ, and on detailed tissue where the lesion only shows there."""
    organ, size = rendered.organ, rendered.organ.shape[0]
    cover = gaussian_filter(organ, 0.5 * radius * size / 2, mode="constant")
    inside = np.flatnonzero(cover.ravel() >= min(0.8, 0.98 * float(cover.max())))
    if kind in ON_DETAIL:
        detail = np.abs(rendered.image - gaussian_filter(rendered.image, 0.03 * size))
        amount = gaussian_filter(detail, 0.5 * radius * size / 2).ravel()[inside]
        inside = inside[amount >= np.quantile(amount, 0.75)]
    row, column = divmod(int(inside[int(rng.random() * len(inside))]), size)
    return (column + 0.5) * 2 / size - 1, (row + 0.5) * 2 / size - 1


def apply_lesion(image: Array, organ: Array, lesion: Lesion, alpha: Array) -> tuple[Array, Array]:
    """Return the slice with the lesion and its mask (bool), both [S, S]."""
    alpha = alpha * np.clip(organ * 1.5, 0, 1)
    peak = float(alpha.max())
    if peak == 0:
        return image, np.zeros(image.shape, bool)
    mask = alpha >= 0.5 * peak
    if lesion.kind is LesionKind.SMOOTHER:
        return image + alpha * (_smoothed(image, organ, 0.6 * lesion.radius * image.shape[0] / 2) - image), mask
    if lesion.kind is LesionKind.DISPLACED:
        return _displaced(image, lesion, alpha), mask
    return image + alpha * np.float32(lesion.contrast), mask


def _smoothed(image: Array, organ: Array, width: float) -> Array:
    """Return the mean of the organ around each pixel, excluding neighbouring bone and air."""
    amount = gaussian_filter(organ, width, truncate=2.5)
    return gaussian_filter(image * organ, width, truncate=2.5) / np.maximum(amount, np.float32(1e-3))


def _displaced(image: Array, lesion: Lesion, alpha: Array) -> Array:
    """Return the content moved by `shift` at full effect, and by less towards the border (a local push)."""
    half = image.shape[0] / 2
    rows: Any
    columns: Any
    rows, columns = np.indices(image.shape, dtype=np.float32)
    rows -= alpha * np.float32(lesion.shift[1] * half)
    columns -= alpha * np.float32(lesion.shift[0] * half)
    moved = map_coordinates(image, [rows, columns], order=1, mode="nearest")
    return np.where(alpha > 0, moved, image)
