"""Shapes of masks: the box around one, and its closing with a disc."""

from __future__ import annotations

import numpy as np


def bounding_box(mask: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns that hold all of a mask [H, W], which must not be empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def closed_with_disc(mask: np.ndarray, radius: int) -> np.ndarray:
    """Return the morphological closing with a disc, by two distance maps; pixels beyond the frame count as empty."""
    from scipy import ndimage

    if not mask.any():
        return mask
    wide = np.pad(mask, radius + 1)
    grown = ndimage.distance_transform_edt(~wide) <= radius
    closed = ndimage.distance_transform_edt(grown) > radius
    return closed[radius + 1 : -radius - 1, radius + 1 : -radius - 1] | mask
