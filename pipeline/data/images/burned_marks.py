"""Callipers, text and other marks that are burned into an ultrasound picture: found by their sharpness, and filled.

Echoes are limited in bandwidth: speckle and fascia rise over several pixels. A mark is one to four pixels wide, bright,
and rises within one or two. Colour is not used, because pixels are stored as luminance.
"""

from __future__ import annotations

import numpy as np

STROKE = 1 / 110  # widest stroke, as a share of the longest edge
LEAST, PEAK = 0.20, 0.38  # rise of a mark's pixels above what surrounds them, and of its highest one; of the range
STEP = 0.28  # the largest difference between neighbours that a mark has at least, of the range
BRIGHT = 0.5  # the highest pixel of a mark, of the range
LONGEST = 0.25  # an object longer than this share of the edge is not a mark but a surface


def find_marks(pixels: np.ndarray, top: float = 255.0) -> np.ndarray:
    """Return the marks of a picture [H, W] whose range is 0 to `top`: bool [H, W], with one pixel around them."""
    from scipy import ndimage

    width = 2 * max(1, round(STROKE * max(pixels.shape) / 2)) + 1
    image = pixels.astype(np.float32) / top
    rise = image - ndimage.grey_opening(image, size=(width, width))
    parts, count = ndimage.label(rise >= LEAST, structure=np.ones((3, 3)))
    high, sharp, bright = (_highest(field, parts, count) for field in (rise, _steps(image), image))
    length = np.array([max(part.stop - part.start for part in place) for place in ndimage.find_objects(parts)], float)
    fits = (high >= PEAK) & (sharp >= STEP) & (bright >= BRIGHT) & (length <= LONGEST * max(pixels.shape))
    return ndimage.binary_dilation(np.concatenate([[False], fits])[parts], structure=np.ones((3, 3)))


def _highest(field: np.ndarray, parts: np.ndarray, count: int) -> np.ndarray:
    """Return the largest value of a field in each of the numbered parts: [count]."""
    highest, inside = np.zeros(count + 1, dtype=np.float32), parts > 0
    np.maximum.at(highest, parts[inside], field[inside])
    return highest[1:]


def _steps(image: np.ndarray) -> np.ndarray:
    """Return the smaller of the largest vertical and the largest horizontal step at each pixel.

    Echoes are sharp along the beam at most; a mark ends as abruptly to its side.
    """
    steps = []
    for axis in (0, 1):
        change = np.abs(np.diff(image, axis=axis))
        none = np.zeros_like(np.take(change, [0], axis=axis))
        steps.append(np.maximum(np.concatenate([none, change], axis), np.concatenate([change, none], axis)))
    return np.minimum(*steps)


def fill(pixels: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Return the picture with marks replaced by the pixels that mirror them at their border, so that speckle goes on.

    Where the mirrored pixel is itself marked or beyond the picture, the nearest clean pixel stands for it.
    """
    from scipy import ndimage

    if not marks.any() or marks.all():
        return pixels
    places = np.argwhere(marks).T
    nearest = ndimage.distance_transform_edt(marks, return_distances=False, return_indices=True)[:, *places]
    mirrored = 2 * nearest - places
    limits = np.array(pixels.shape)[:, None]
    inside = ((mirrored >= 0) & (mirrored < limits)).all(axis=0)
    clipped = np.clip(mirrored, 0, limits - 1)
    usable = inside & ~marks[tuple(clipped)]
    source = np.where(usable, clipped, nearest)
    filled = pixels.copy()
    filled[tuple(places)] = pixels[tuple(source)]
    return filled


def extend(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the picture with the nearest pixel of the mask at every pixel beyond it, so that no edge is left."""
    from scipy import ndimage

    if mask.all():
        return pixels
    nearest = ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True)
    return pixels[tuple(nearest)]
