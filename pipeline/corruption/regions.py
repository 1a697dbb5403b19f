"""Regions in which lesions may lie: the body, lungs of a radiograph, tissue of a breast, the brain within its skull.

Painting lesions within the lungs alone is the idea of AnatPaste (Sato et al., arXiv:2205.04282): the two largest dark
parts of a chest. Here several thresholds are tried, and each side's part must look like a lung: not on the border of
the body, not too small, and tall enough. Regions are found image by image on the CPU.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.data.images.mask_shapes import bounding_box, closed_with_disc
from pipeline.errors import ConfigError

RegionName = Literal["body", "lungs", "breast", "brain"]
SHARES = (0.28, 0.38, 0.48, 0.58)  # of the body that may be dark, tried in turn
LUNG_AREA = (0.03, 0.32)  # of one lung, as a share of the body's box
LUNG_HEIGHT = 0.25  # of one lung, as a share of the height of the body's box
LUNG_WIDTH = 0.45  # of one lung, at most, as a share of the width of the body's box
ON_BORDER = 0.06  # largest share of a lung's outline that lies on the border of the body or of its box
OUTER = 0.25  # of a blurred lung: dark lung ends within the soft border of its shadow
WORKING = 64  # edge of the grid on which lungs are sought
UNEVEN, WIDE = 0.8, 0.25  # share of a wide blur that is taken away on the second try, and its length / image edge
BRAIN_AREA = (0.35, 0.9)  # of the brain, as a share of the body
TISSUE = 0.35  # darkest share of a breast that is not counted as tissue
DEVICE = 5  # edge in pixels of the square that a tube, wire or letter is thinner than


def find_region(images: Tensor, body: Tensor, region: RegionName) -> tuple[Tensor, Tensor]:
    """Return the region of each image, and whether it was found; where it was not, the region is the body.

    Args:
        images: float32 [B, C, *spatial] in [-1, 1]; the mean of the channels counts.
        body: bool [B, 1, *spatial].

    Returns:
        mask bool [B, 1, *spatial], within the body; found bool [B].

    Raises:
        ConfigError: a region other than the body in volumes.
    """
    if region == "body":
        return body, torch.ones(len(body), dtype=torch.bool, device=body.device)
    if images.ndim != 4:
        raise ConfigError(
            f"Lesions within {region} are painted on slices; this model reads volumes of {images.ndim - 2} dimensions. "
            "Set lesions.region to body, or train on slices."
        )
    look = {"lungs": _lungs, "breast": _breast, "brain": _brain}[region]
    masks, located = body.clone(), torch.zeros(len(body), dtype=torch.bool)
    grey = images.detach().float().mean(dim=1).cpu().numpy()
    for row, (image, inside) in enumerate(zip(grey, body[:, 0].cpu().numpy(), strict=True)):
        mask = look(image, inside) if inside.any() else None
        if mask is not None:
            masks[row, 0], located[row] = torch.from_numpy(mask).to(body.device), True
    return masks, located.to(body.device)


def devices(images: Tensor, rise: float) -> Tensor:
    """Return what is thin and brighter by `rise` than what surrounds it, and a pixel around it: bool [B, 1, H, W].

    Tubes, wires, clips and letters: a morphological opening with a square removes what is thinner than it.
    """
    grey = images.mean(dim=1, keepdim=True)
    pad = DEVICE // 2
    eroded = -F.max_pool2d(-grey, DEVICE, 1, pad)
    opened = F.max_pool2d(eroded, DEVICE, 1, pad)
    return F.max_pool2d((grey - opened >= rise).float(), 3, 1, 1) > 0


def _lungs(image: np.ndarray, body: np.ndarray) -> np.ndarray | None:
    """Return the largest dark part on each side of the mediastinum, ribs included, or None."""
    from scipy import ndimage

    step = -(-len(image) // WORKING)
    smooth = ndimage.gaussian_filter(image, 0.012 * len(image))[::step, ::step]
    box = bounding_box(body[::step, ::step])
    smooth, inside = smooth[box], body[::step, ::step][box]
    best: list[np.ndarray] = []
    for field in (smooth, smooth - UNEVEN * ndimage.gaussian_filter(smooth, WIDE * len(smooth))):
        for share in SHARES:
            lungs = _pair(inside & (field < np.quantile(field[inside], share)), inside, _middle(smooth))
            if (len(lungs), sum(lung.sum() for lung in lungs)) > (len(best), sum(lung.sum() for lung in best)):
                best = lungs
        if len(best) == 2:
            break
    if not best:
        return None
    small = np.zeros(body[::step, ::step].shape, dtype=np.float32)
    small[box] = np.logical_or.reduce(best) & inside
    full = np.kron(small, np.ones((step, step), np.float32))[: body.shape[0], : body.shape[1]]
    return (ndimage.gaussian_filter(full, 0.012 * len(image)) >= OUTER) & body


def _middle(smooth: np.ndarray) -> int:
    """Return the brightest column near the middle: spine and mediastinum."""
    height, width = smooth.shape
    first, last = round(0.36 * width), max(round(0.36 * width) + 1, round(0.64 * width))
    return first + int(smooth[height // 5 : max(height // 5 + 1, 3 * height // 4), first:last].mean(axis=0).argmax())


def _pair(dark: np.ndarray, inside: np.ndarray, middle: int) -> list[np.ndarray]:
    sides = (_lung(dark, inside, slice(0, middle)), _lung(dark, inside, slice(middle + 1, dark.shape[1])))
    return [side for side in sides if side is not None]


def _lung(dark: np.ndarray, inside: np.ndarray, columns: slice) -> np.ndarray | None:
    """Return the largest dark part of one side that may be a lung, closed over its ribs, or None."""
    from scipy import ndimage

    half = np.zeros_like(dark)
    half[:, columns] = dark[:, columns]
    parts, count = ndimage.label(ndimage.binary_opening(half))
    if not count:
        return None
    sizes = np.bincount(parts.ravel())[1:]
    for number in 1 + np.argsort(-sizes)[:2]:
        lung = ndimage.binary_fill_holes(closed_with_disc(parts == number, max(1, round(0.03 * len(dark))))) & inside
        lung[:, : columns.start], lung[:, columns.stop :] = False, False
        if _plausible(lung, inside):
            return lung
    return None


def _plausible(lung: np.ndarray, inside: np.ndarray) -> bool:
    """Whether a part is as large and tall as a lung, upright, and away from the border of the body and of its box."""
    from scipy import ndimage

    rows, columns = (np.flatnonzero(lung.any(axis=axis)) for axis in (1, 0))
    height, width = lung.shape
    tall, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
    border = ndimage.binary_dilation(~inside)
    border[[0, -1]] = border[:, [0, -1]] = True
    outline = lung & ~ndimage.binary_erosion(lung)
    return bool(
        LUNG_AREA[0] <= lung.mean() <= LUNG_AREA[1]
        and tall >= LUNG_HEIGHT * height
        and wide <= min(LUNG_WIDTH * width, 1.2 * tall)
        and (lung & border).sum() <= ON_BORDER * outline.sum()
    )


def _breast(image: np.ndarray, body: np.ndarray) -> np.ndarray | None:
    """Return the brighter tissue below the skin, holes filled, or None."""
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(image, 0.03 * len(image))
    deep = _eroded(body, 0.06 * len(image))
    if not deep.any():
        return None
    tissue = deep & (smooth >= np.quantile(smooth[deep], TISSUE))
    tissue = ndimage.binary_fill_holes(ndimage.binary_opening(tissue, iterations=2)) & deep
    return tissue if tissue.sum() >= 0.2 * body.sum() else None


def _brain(image: np.ndarray, body: np.ndarray) -> np.ndarray | None:
    """Return the largest part within a ring of skull, dark (MR) or bright (CT), holes filled; or None."""
    from scipy import ndimage

    deep = _eroded(body, 0.02 * len(image))
    values = image[deep] if deep.any() else image[body]
    low, high = np.median(values) - 0.6 * values.std(), np.median(values) + 3 * values.std()
    tissue = deep & (image > low) & (image < max(high, 0.98 * values.max() if values.max() < 1 else high))
    tissue = ndimage.binary_opening(tissue, iterations=max(1, round(0.015 * len(image))))
    parts, count = ndimage.label(tissue)
    if not count:
        return None
    middle = ndimage.distance_transform_edt(body)
    depth = ndimage.mean(middle, parts, np.arange(1, count + 1)) * np.bincount(parts.ravel())[1:] ** 0.5
    brain = parts == 1 + int(np.argmax(depth))
    brain = ndimage.binary_fill_holes(closed_with_disc(brain, max(1, round(0.06 * len(image))))) & deep
    low_area, high_area = BRAIN_AREA
    return brain if low_area <= brain.sum() / body.sum() <= high_area else None


def _eroded(mask: np.ndarray, radius: float) -> np.ndarray:
    """Return the pixels of a mask that are further than a radius from its border; beyond the frame is outside."""
    from scipy import ndimage

    depth: Any = ndimage.distance_transform_edt(np.pad(mask, 1))
    return depth[1:-1, 1:-1] > radius
