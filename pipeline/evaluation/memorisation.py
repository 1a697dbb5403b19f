"""Whether samples are copies of training images: the nearest training patient of each, against held-out real images.

A sample counts as copied by either of two rules, and held-out real images are judged by the same ones, since real data
hold near duplicates too.

- Features: it is nearer to a training image than 99 % of the held-out real images are.
- Pixels: among 8 by 8 thumbnails, free of brightness and contrast, mirrored and shifted by up to 1/24 of the edge, its
  distance to the nearest training image is less than a third of that to the nearest of another patient (the ratio of
  Yoon et al. 2023, "Diffusion probabilistic models generalize when they fail to memorize"). Noise, blur, a shift and a
  mirror hide a copy from the features, and not from this; a blurred mean, near to many images, is not called a copy.

What these rules miss, such as copies that are turned or enlarged a little, the data-copying test of Meehan, Chaudhuri
and Dasgupta (2020, arXiv:2004.05675) sees as a whole: `nearer` is the probability that a sample is nearer to the
training images than a held-out real image of its class is. It is 1/2 for new images; samples that are more typical than
real ones, by truncation or guidance, have more as well, so it is a reason to look, not a proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.stats import binomtest, norm

from pipeline.config import Config
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.closeness import Closeness
from pipeline.evaluation.compare import auroc_covariance

NEAR_SHARE = 0.01  # of held-out real images that are as near to a training image as a copy
RATIO = 1 / 3
EXACT = 1e-4  # distance of features below which two images are the same


class NearestPair(Config):
    """A sample and its nearest training image.

    Attributes:
        sample, train: their indices.
        patient: of the training image.
        rule: the rule by which they are nearest.
        closeness: their distance or ratio over that of the rule; below 1 the sample counts as copied.
    """

    sample: int
    train: int
    patient: str
    rule: Literal["features", "pixels"]
    closeness: float


class Memorisation(Config):
    """Distances to the training images, of samples and of held-out real images.

    Attributes:
        nearest, nearest_real: median distance of features to the nearest training image.
        nearer: probability that a sample is nearer to a training image than a held-out real image of its class is; None
            without two of either. The interval is Obuchowski's, over patients and samples.
        copied: share of the samples that count as copied, with a Clopper-Pearson interval.
        copied_real: the same share of the held-out real images.
        leaked: held-out real images that are in the training set as well; they are left out of the other numbers.
        pairs: the pairs that are closest by the rules, closest first.
    """

    nearest: float
    nearest_real: float
    nearer: Estimate | None
    copied: Estimate
    copied_real: float
    leaked: int
    pairs: tuple[NearestPair, ...]


def judge_memorisation(
    samples: Closeness, real: Closeness, patients: Sequence[str], pairs: int, confidence: float
) -> Memorisation:
    """Compare the closeness of samples with that of held-out real images, and list the closest pairs.

    Args:
        samples, real: of each image.
        patients: of the training images.
        pairs: number of pairs to list.
        confidence: of the intervals.
    """
    fresh = real.rows(real.distance > EXACT)
    leaked = len(real.distance) - len(fresh.distance)
    near = float(np.quantile(fresh.distance, NEAR_SHARE)) if len(fresh.distance) else EXACT
    closeness, of_real = _closest(samples, near), _closest(fresh, near)
    order = np.argsort(closeness, kind="stable")[:pairs]
    return Memorisation(
        nearest=float(np.median(samples.distance)),
        nearest_real=float(np.median(fresh.distance)) if len(fresh.distance) else 0.0,
        nearer=nearer_than_real(samples, fresh, confidence),
        copied=share_of(int((closeness < 1).sum()), len(closeness), confidence),
        copied_real=float((of_real < 1).mean()) if len(of_real) else 0.0,
        leaked=leaked,
        pairs=tuple(_pair(samples, int(row), near, patients) for row in order),
    )


def nearer_than_real(samples: Closeness, real: Closeness, confidence: float) -> Estimate | None:
    """Return the probability that a sample is nearer than a real image of its class; ties count half.

    Each class counts by its samples. None if no class has two samples, and real images of two patients.
    """
    sizes, areas, variances = [], [], []
    for name in sorted({*samples.classes}):
        ours, theirs = samples.rows(samples.classes == name), real.rows(real.classes == name)
        if min(len(ours.owners), len({*theirs.owners})) < 2:
            continue
        clusters = np.concatenate([ours.owners, theirs.owners + ours.owners.max() + 1])
        is_sample = np.arange(len(clusters)) < len(ours.owners)
        nearness = -np.concatenate([ours.distance, theirs.distance])
        area, covariance = auroc_covariance(nearness[None], is_sample, clusters)
        sizes.append(len(ours.owners))
        areas.append(float(area[0]))
        variances.append(float(covariance[0, 0]))
    if not sizes:
        return None
    shares = np.array(sizes) / sum(sizes)
    value, error = float(shares @ areas), float(shares**2 @ variances) ** 0.5
    reach = float(norm.ppf((1 + confidence) / 2)) * error
    return Estimate(value=value, low=max(0.0, value - reach), high=min(1.0, value + reach))


def _closest(images: Closeness, near: float) -> np.ndarray:
    return np.minimum(images.distance / near, images.ratio / RATIO)


def _pair(samples: Closeness, row: int, near: float, patients: Sequence[str]) -> NearestPair:
    by_features, by_pixels = float(samples.distance[row]) / near, float(samples.ratio[row]) / RATIO
    features = by_features <= by_pixels
    train = int(samples.nearest[row] if features else samples.aligned[row])
    return NearestPair(
        sample=row,
        train=train,
        patient=patients[train],
        rule="features" if features else "pixels",
        closeness=min(by_features, by_pixels),
    )


def share_of(count: int, total: int, confidence: float) -> Estimate:
    """Return count / total with its Clopper-Pearson interval."""
    exact = binomtest(count, total).proportion_ci(confidence, method="exact")
    return Estimate(value=count / total, low=exact.low, high=exact.high)
