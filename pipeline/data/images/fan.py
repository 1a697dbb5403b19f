"""The fan of an ultrasound picture: where its echoes are, from the file's own regions or from the pixels.

Around the echoes a scanner draws what is not the patient: black, text, scales, logos. Echoes are the only large part
whose pixels differ from their neighbours everywhere, since speckle covers them. Strokes of text are constant along
their length and have background between them; what is left of them is thin, and a morphological opening removes it. A
picture that its echoes fill, as an image that somebody cropped, has no fan and is left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.data.images.mask_shapes import bounding_box

Region = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, the last ones included (PS3.3 C.8.5.5.1.3)

WORKING = 192  # longest edge on which the fan is sought
LIVELY = 0.2  # of the pixels of a block must differ from the next one to the right and below
OPENING = 3  # radius in blocks of the opening that removes lines of text
CONTRAST, BLANK, AROUND = 0.5, 0.35, 5  # several lines of text: this contrast and this much background in 5 x 5 blocks
SMALLEST = 0.08  # a fan covers at least this share of the picture
MARGIN = 0.03  # a flat border narrower than this is not worth a crop
FULL = 0.93  # a hull that covers this share of its box is a rectangle
UPPER = 0.6  # share of the height over which a rectangle is recognised: the depth may be too dark to be seen


@dataclass(frozen=True, slots=True)
class Fan:
    """A fan: `crop` as rows and columns of the picture, and `mask` bool [H, W], which may be all of the crop."""

    crop: tuple[slice, slice]
    mask: np.ndarray


def find_fan(pixels: np.ndarray, regions: Sequence[Region] = ()) -> Fan | None:
    """Return the fan of a picture [H, W], or None where its echoes fill it or nothing like a fan is there.

    `regions` are the file's; those that do not fit the picture are ignored (some files keep those of a larger one).
    """
    box = _declared(regions, pixels.shape)
    hull = _echoes(pixels if box is None else pixels[box])
    if hull is None:
        return None if box is None else _whole(box, pixels.shape)
    if box is not None:
        full = np.zeros(pixels.shape, dtype=bool)
        full[box] = hull
        hull = full
    crop = bounding_box(hull)
    if _rectangular(hull[crop]):
        crop = box or _without_thin_margins(crop, pixels.shape)
        return None if crop == _frame(pixels.shape) else _whole(crop, pixels.shape)
    return Fan(crop, hull)


def _declared(regions: Sequence[Region], shape: tuple[int, ...]) -> tuple[slice, slice] | None:
    """Return the box around all regions that fit, or None."""
    rows, columns = shape
    fits = [(x0, y0, x1, y1) for x0, y0, x1, y1 in regions if 0 <= x0 < x1 <= columns and 0 <= y0 < y1 <= rows]
    if not fits:
        return None
    x0, y0, x1, y1 = (
        int(edge(values)) for edge, values in zip((min, min, max, max), zip(*fits, strict=True), strict=True)
    )
    box = slice(y0, min(y1 + 1, rows)), slice(x0, min(x1 + 1, columns))
    return box if (y1 - y0) * (x1 - x0) >= SMALLEST * rows * columns else None


def _echoes(pixels: np.ndarray) -> np.ndarray | None:
    """Return the convex hull of the largest part that is not flat, bool [H, W]; None if it is too small."""
    from scipy import ndimage

    step = max(1, -(-max(pixels.shape) // WORKING))
    lively = _shrunk(_differs(pixels, 0) & _differs(pixels, 1), step) >= LIVELY
    cross = ndimage.generate_binary_structure(2, 1)
    lively &= ~_texts(pixels, step)
    lively = ndimage.binary_closing(np.pad(lively, 2, mode="edge"), cross)[2:-2, 2:-2]
    lively = ndimage.binary_opening(lively, ndimage.iterate_structure(cross, OPENING))
    parts, count = ndimage.label(ndimage.binary_dilation(lively, cross, iterations=2))
    if not count:
        return None
    largest = lively & (parts == 1 + int(np.bincount(parts[lively])[1:].argmax()))
    if largest.mean() < SMALLEST:
        return None
    hull = _convex(largest)
    return np.kron(hull, np.ones((step, step), dtype=bool))[: pixels.shape[0], : pixels.shape[1]]


def _texts(pixels: np.ndarray, step: int) -> np.ndarray:
    """Return the blocks that lie within several lines of text: bright strokes on much of the picture's background."""
    from scipy import ndimage

    values, counts = np.unique(pixels, return_counts=True)
    blank = _shrunk(pixels == values[counts.argmax()], step)
    rows, columns = blank.shape
    middle = pixels[step // 2 :: step, step // 2 :: step][:rows, :columns]
    middle = np.pad(middle, ((0, rows - middle.shape[0]), (0, columns - middle.shape[1])), mode="edge")
    spread = ndimage.maximum_filter(middle, AROUND) - ndimage.minimum_filter(middle, AROUND)
    texts = (spread > CONTRAST * np.ptp(values)) & (ndimage.uniform_filter(blank, AROUND) >= BLANK)
    return ndimage.binary_opening(texts, np.ones((AROUND, AROUND)))


def _differs(pixels: np.ndarray, axis: int) -> np.ndarray:
    """Whether each pixel differs from the next one along an axis; the last ones repeat those before."""
    differs = np.diff(pixels, axis=axis) != 0
    return np.concatenate([differs, np.take(differs, [-1], axis=axis)], axis=axis)


def _shrunk(mask: np.ndarray, step: int) -> np.ndarray:
    """Return the mean over blocks of step x step pixels; the last ones repeat the border."""
    rows, columns = (-(-edge // step) * step for edge in mask.shape)
    full = np.pad(mask, ((0, rows - mask.shape[0]), (0, columns - mask.shape[1])), mode="edge")
    return full.reshape(rows // step, step, columns // step, step).mean(axis=(1, 3))


def _convex(mask: np.ndarray) -> np.ndarray:
    """Return the convex hull of a mask: the gaps that shadows and fluid leave belong to the fan."""
    from scipy.spatial import ConvexHull, QhullError

    points = np.argwhere(mask)
    try:
        sides = ConvexHull(points).equations
    except QhullError:  # all on one line
        return mask
    everywhere = np.indices(mask.shape).reshape(2, -1)
    inside = (sides[:, :2] @ everywhere + sides[:, 2:] <= 1e-6).all(axis=0)
    return inside.reshape(mask.shape)


def _rectangular(hull: np.ndarray) -> bool:
    """Whether a hull fills the upper part of its box, so that it is a rectangle that at most grows dark with depth."""
    return bool(hull[: max(1, round(UPPER * len(hull)))].mean() >= FULL)


def _without_thin_margins(crop: tuple[slice, slice], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the crop, extended to the frame where it is near it; a dark end of an image that fills its sides stays."""
    sides = list(zip(crop, shape, strict=True))
    near = [[part.start <= MARGIN * edge, part.stop >= (1 - MARGIN) * edge] for part, edge in sides]
    if near[0][0] and all(near[1]):
        return _frame(shape)
    rows, columns = (
        slice(0 if low else part.start, edge if high else part.stop)
        for (part, edge), (low, high) in zip(sides, near, strict=True)
    )
    return rows, columns


def _frame(shape: tuple[int, ...]) -> tuple[slice, slice]:
    return slice(0, shape[0]), slice(0, shape[1])


def _whole(crop: tuple[slice, slice], shape: tuple[int, ...]) -> Fan:
    mask = np.zeros(shape, dtype=bool)
    mask[crop] = True
    return Fan(crop, mask)
