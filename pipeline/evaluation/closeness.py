"""Closeness of images to the training images: in features, and among thumbnails that are aligned to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.distance import cdist
from torch import Tensor

from pipeline.evaluation.image_features import thumbnails

SHIFTS = 5  # positions per axis
REACH = 24  # the largest shift is the edge over this


@dataclass(frozen=True)
class Closeness:
    """How near each of N images is to the training images.

    Attributes:
        distance, nearest: distance of features to the nearest training image, and its index: [N].
        ratio, aligned: ratio of the distances of thumbnails to the nearest two patients, and the nearest index: [N].
        classes, owners: class of each, "" without classes, and its patient: [N].
    """

    distance: np.ndarray
    nearest: np.ndarray
    ratio: np.ndarray
    aligned: np.ndarray
    classes: np.ndarray
    owners: np.ndarray

    def rows(self, chosen: np.ndarray) -> Closeness:
        """Return that of some of the images."""
        return Closeness(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(frozen=True)
class TrainingImages:
    """Training images [T, C, H, W], their features [T, F], and the number of each one's patient, int [T]."""

    images: Tensor
    features: np.ndarray
    patients: np.ndarray

    def closeness(self, images: Tensor, features: np.ndarray, classes: Sequence[str], owners: np.ndarray) -> Closeness:
        """Return how near images [N, C, H, W], of these classes and patients, are to the training images."""
        distances = cdist(features, self.features)
        apart = (2 - 2 * _alignment(images, self.images)).clamp_min(0).sqrt().numpy()
        aligned = apart.argmin(axis=1)
        others = np.where(self.patients[None] != self.patients[aligned][:, None], apart, np.inf)
        ratio = _ratio(apart.min(axis=1), others.min(axis=1))
        return Closeness(
            distances.min(axis=1), distances.argmin(axis=1), ratio, aligned, np.array(classes, str), owners
        )


def _ratio(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return first / second; 1 where no ratio exists: two patients have this very image, or there is only one."""
    usable = np.isfinite(second) & (second > 0)
    return np.where(usable, first / np.where(usable, second, 1), 1.0)


def _alignment(images: Tensor, train: Tensor) -> Tensor:
    """Return the largest correlation of thumbnails over mirrors and shifts of the images: [N, T]."""
    target = _standard(thumbnails(train)).T
    edge = max(1, images.shape[-1] // REACH)
    steps = sorted({round(float(step)) for step in np.linspace(-edge, edge, SHIFTS)})
    best = torch.full((len(images), len(train)), -1.0)
    for oriented in (images.float(), images.float().flip(-1)):
        around = F.pad(oriented, (edge,) * 4, mode="replicate")
        for down in steps:
            for across in steps:
                moved = around[..., edge + down :, edge + across :][..., : images.shape[-2], : images.shape[-1]]
                best = torch.maximum(best, _standard(thumbnails(moved)) @ target)
    return best


def _standard(vectors: Tensor) -> Tensor:
    centred = vectors - vectors.mean(dim=1, keepdim=True)
    return centred / centred.norm(dim=1, keepdim=True).clamp_min(1e-6)
