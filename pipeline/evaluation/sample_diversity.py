"""Differences of samples from each other and their sharpness, always beside the same number of real images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from pipeline.evaluation.image_features import thumbnails
from pipeline.evaluation.real_images import RealImages, codes_of

FAR = 0.25  # of the range of the real images, beyond it
STEP = 1 / 3  # of the typical difference between neighbours: below it two images count as one
PAIRS = 400  # drawn for the means over pairs
WINDOW = 11  # pixels of the window of SSIM
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli and Bovik 2003, section 4


@dataclass(frozen=True)
class Diversity:
    """Of one set of images.

    Attributes:
        ms_ssim: mean multi-scale SSIM of pairs within a class; 1 for identical images; None without a pair.
        spread: mean root-mean-square difference of the thumbnails of these pairs.
        sharpness: median over images of the root-mean-square difference from the mean of 3 by 3 pixels.
    """

    ms_ssim: float | None
    spread: float | None
    sharpness: float


def compare_variety(samples: Tensor, classes: Sequence[str], real: RealImages, seed: int) -> dict[str, float | None]:
    """Return the numbers of variety of `ImageQuality` for samples [N, C, H, W] of `classes` against real images."""
    ours = measure_diversity(samples, np.arange(len(samples)), codes_of(classes), seed)
    theirs = measure_diversity(real.images, real.owners, real.codes, seed)
    distinct, distinct_real = compare_distinct(samples, np.array(classes, str), real, seed)
    return {
        "ms_ssim": ours.ms_ssim,
        "ms_ssim_real": theirs.ms_ssim,
        "spread": ours.spread / theirs.spread if ours.spread is not None and theirs.spread else None,
        "distinct": distinct,
        "distinct_real": distinct_real,
        "sharpness": ours.sharpness / max(theirs.sharpness, 1e-6),
        "outside": _outside(samples, real.images),
    }


def compare_distinct(samples: Tensor, classes: np.ndarray, real: RealImages, seed: int) -> tuple[float, float]:
    """Return the share of distinct images among samples and among as many real ones.

    Two images of a class count as one if their thumbnails differ by less than a third of the typical difference between
    a real image of that class and its nearest other one.
    """
    rng, n = np.random.default_rng(seed), min(len(samples), len(real.images))
    real_classes = np.array(real.classes or [""] * len(real.images), str)
    ours, theirs = rng.permutation(len(samples))[:n], rng.permutation(len(real.images))[:n]
    counts = [0, 0]
    for name in {*classes[ours], *real_classes[theirs]}:
        of_class, real_of_class = ours[classes[ours] == name], theirs[real_classes[theirs] == name]
        near = STEP * typical_step(real.images[real_of_class if len(real_of_class) > 1 else theirs])
        counts[0] += count_distinct(samples[of_class], near)
        counts[1] += count_distinct(real.images[real_of_class], near)
    return counts[0] / n, counts[1] / n


def _outside(samples: Tensor, real: Tensor) -> float:
    """Return the share of the pixels that lie beyond the range of the real images by more than a quarter of it."""
    low, high = float(real.min()), float(real.max())
    margin = FAR * (high - low)
    return float(((samples < low - margin) | (samples > high + margin)).float().mean())


def measure_diversity(images: Tensor, groups: np.ndarray, classes: np.ndarray, seed: int) -> Diversity:
    """Return the diversity of images [N, C, H, W].

    Args:
        images: about [-1, 1].
        groups: patient of each image, int [N]; pairs of one patient are left out.
        classes: class of each image, int [N]; pairs are drawn within a class.
        seed: of the pairs.
    """
    first, second = draw_pairs(groups, classes, seed)
    if not len(first):
        return Diversity(None, None, sharpness(images))
    small = thumbnails(images)
    spread = (small[first] - small[second]).square().mean(dim=1).sqrt().mean()
    return Diversity(float(ms_ssim(images[first], images[second]).mean()), float(spread), sharpness(images))


def draw_pairs(groups: np.ndarray, classes: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return up to 400 pairs of images of one class and of two patients, as two arrays of indices."""
    rng = np.random.default_rng(seed)
    first = rng.integers(len(groups), size=20 * PAIRS)
    order = np.argsort(classes, kind="stable")
    starts, sizes = np.searchsorted(classes[order], classes[first]), np.bincount(classes)[classes[first]]
    second = order[starts + rng.integers(sizes)]
    apart = np.flatnonzero(groups[first] != groups[second])[:PAIRS]
    return first[apart], second[apart]


def ms_ssim(first: Tensor, second: Tensor) -> Tensor:
    """Return the multi-scale SSIM of pairs of images [N, C, H, W] in [-1, 1]: [N].

    MONAI's, with as many of the five scales as the size allows (three at 64 pixels), their weights scaled to sum to 1.
    """
    from monai.metrics import MultiScaleSSIMMetric

    edge = min(first.shape[-2:])
    scales = max(n for n in range(1, len(SCALES) + 1) if n == 1 or edge // (n - 1) ** 2 >= WINDOW)
    weights = torch.tensor(SCALES[:scales]) / sum(SCALES[:scales])
    metric = MultiScaleSSIMMetric(2, kernel_size=WINDOW, weights=weights.tolist(), reduction="none")
    values: Tensor = metric((first.float() + 1) / 2, (second.float() + 1) / 2)
    return values.flatten()


def sharpness(images: Tensor) -> float:
    """Return the median over images of the root-mean-square difference from the mean of 3 by 3 pixels."""
    smooth = F.avg_pool2d(F.pad(images.float(), (1, 1, 1, 1), mode="replicate"), 3, 1)
    return float((images - smooth).square().flatten(1).mean(dim=1).sqrt().median())


def count_distinct(images: Tensor, near: float) -> int:
    """Return the number of groups of images whose thumbnails are linked by differences of at most `near`."""
    return int(connected_components(_differences(images) <= near, directed=False)[0]) if len(images) else 0


def typical_step(images: Tensor) -> float:
    """Return the median difference of thumbnails from an image to its nearest other one."""
    differences = _differences(images)
    return float(np.median(np.where(np.eye(len(images), dtype=bool), np.inf, differences).min(axis=1)))


def _differences(images: Tensor) -> np.ndarray:
    small = thumbnails(images)
    differences: np.ndarray = (torch.cdist(small, small) / small.shape[1] ** 0.5).numpy()
    return differences
