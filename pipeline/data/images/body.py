"""Body mask: the pixels that belong to the patient, as one small mask on the model grid, from physical values."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from pipeline.config import Config
from pipeline.data.images.letterbox import Letterbox
from pipeline.data.images.mask_shapes import closed_with_disc

SPECK = 0.01  # components smaller than this share of the largest are noise


class BodyConfig(Config):
    """Method of finding the body.

    `threshold`: pixels above `threshold` (physical units). `otsu`: pixels above a cut at `otsu_factor` of the way from
    the background's mean to Otsu's threshold of the series. `frame`: everything that is neither padding nor a flat
    collimation border. The first two then close gaps, drop small components and fill holes, in this order.
    """

    method: Literal["threshold", "otsu", "frame"] = Field(
        "threshold", description="how foreground is separated from air"
    )
    threshold: float = Field(-300.0, description="foreground is above it, physical units (method threshold)")
    otsu_factor: float = Field(
        0.25, gt=0, le=2, description="position of the cut between background and Otsu's threshold (method otsu)"
    )
    closing: float = Field(
        0.0, ge=0, le=0.1, description="gaps up to twice this share of the image size are closed first (0: never)"
    )
    smaller_parts: float = Field(
        0.25,
        ge=0,
        le=1,
        description="components smaller than this share of the largest are dropped; 1 keeps only the largest",
    )
    fill_holes: bool = Field(True, description="count enclosed air and fluid as body")
    flat_border: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="border rows and columns whose values span a smaller share of the range are collimation",
    )


def foreground_cut(values: np.ndarray, factor: float, bins: int = 256) -> float:
    """Return the cut at `factor` of the way from background mean to Otsu's threshold (Otsu 1979, eq. 18) of `values`.

    Otsu's threshold maximises the variance between two classes. With bright fat it is above dark tissue, hence the
    factor. Where several thresholds are equally good (an empty gap) the middle one is used. The histogram spans minimum
    to 99.9th percentile, so that a few hot pixels do not make it coarse. For constant values it returns that constant.
    """
    low, high = float(values.min()), float(np.percentile(values, 99.9))
    if not high > low:
        return low
    counts, edges = np.histogram(np.minimum(values, high), bins=bins, range=(low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    weight, moment = np.cumsum(counts).astype(np.float64), np.cumsum(counts * centres)
    below, above = weight[:-1], weight[-1] - weight[:-1]
    background, foreground = moment[:-1] / below, (moment[-1] - moment[:-1]) / above
    between = below * above * (foreground - background) ** 2
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))  # ties, up to rounding
    middle = int(best[len(best) // 2])
    return float(background[middle] + factor * (edges[1 + middle] - background[middle]))


def body_mask(
    pixels: np.ndarray, valid: np.ndarray | None, box: Letterbox, config: BodyConfig, cut: float
) -> np.ndarray:
    """Return bool [size, size]: True inside the body and inside the original frame.

    `pixels` float [H, W] physical and finite; `valid` bool [H, W] or None; `cut` is the foreground threshold (methods
    threshold and otsu) or the width of the intensity range (method frame). A grid cell is foreground if at least half
    of its (antialiased) footprint is. The mask may be empty, as for a slice of air.
    """
    if config.method == "frame":
        return _frame(pixels, valid, box, config.flat_border * cut)
    inside = pixels > cut if valid is None else (pixels > cut) & valid
    mask = box.place(inside, 0.0) >= 0.5
    radius = round(config.closing * box.size)
    if radius:
        mask = closed_with_disc(_large_parts(mask, SPECK), radius)  # specks of noise would grow arms towards the body
    mask = _large_parts(mask, config.smaller_parts)
    if config.fill_holes:
        from scipy import ndimage

        mask = ndimage.binary_fill_holes(mask)
    return mask & _inside(box)


def _inside(box: Letterbox) -> np.ndarray:
    inside = np.zeros((box.size, box.size), dtype=bool)
    inside[box.window] = True
    return inside


def _large_parts(mask: np.ndarray, share: float) -> np.ndarray:
    from scipy import ndimage

    parts, count = ndimage.label(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    keep = sizes >= share * sizes.max()
    keep[0] = False
    if share == 1:
        keep[:] = False
        keep[int(sizes.argmax())] = True
    return keep[parts]


def _frame(pixels: np.ndarray, valid: np.ndarray | None, box: Letterbox, tolerance: float) -> np.ndarray:
    """Return everything valid inside the outermost rows and columns that are not flat (upright collimation only)."""
    usable = np.ones(pixels.shape, dtype=bool) if valid is None else valid
    inner = np.zeros((box.size, box.size), dtype=bool)
    small = np.where(box.place(usable, 0.0) >= 0.5, box.place(np.where(usable, pixels, 0.0), 0.0), np.nan)[box.window]
    rows, columns = _span(small, tolerance, axis=1), _span(small, tolerance, axis=0)
    inside = np.isfinite(small)
    inside[: rows.start], inside[rows.stop :] = False, False
    inside[:, : columns.start], inside[:, columns.stop :] = False, False
    inner[box.window] = inside
    return inner


def _span(small: np.ndarray, tolerance: float, axis: int) -> slice:
    """Return the range from first to last line along the other axis that is not flat; all lines if all are flat."""
    finite = np.isfinite(small)
    wide = small.astype(np.float64)
    highest = np.where(finite, wide, -np.inf).max(axis=axis)
    lowest = np.where(finite, wide, np.inf).min(axis=axis)
    lines = np.flatnonzero(highest - lowest > tolerance)
    return slice(int(lines[0]), int(lines[-1]) + 1) if lines.size else slice(0, len(highest))
