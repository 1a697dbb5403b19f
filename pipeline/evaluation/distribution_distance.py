"""Distances of two sets of images in a feature space: KID, FID, precision and recall.

KID (Binkowski et al. 2018, arXiv:1801.01401) is the unbiased estimate of the squared maximum mean discrepancy with the
kernel (x'y / d + 1)^3: its expectation does not depend on the number of images, and is 0 for two samples of one
distribution, so single values may be negative. FID (Heusel et al. 2017, arXiv:1706.08500, equation 6) is biased upwards
with few images: compare it at equal numbers only. Precision and recall are those of Kynkäänniemi et al. 2019
(arXiv:1904.06991, equation 1): the share of samples within reach of a real image, and of real images within reach of a
sample. Deviation: images of one patient are not compared with each other, neither in KID nor for the reach of a real
image, since neighbouring slices of one patient are more alike than two draws from the population.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

DEGREE = 3
NEIGHBOURS = 3


def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return (x'y / d + 1)^3 of features [N, d] and [M, d]: [N, M]."""
    gram: np.ndarray = (x @ y.T / x.shape[1] + 1) ** DEGREE
    return gram


@dataclass(frozen=True)
class KernelDistance:
    """KID of samples and real images for any weights of the samples and of the patients.

    Attributes:
        real, sampled: kernel values within each set, 0 for pairs of one patient or of one sample: [M, M], [N, N].
        across: between real images and samples [M, N].
        patients: the patient of each real image, 0 to P - 1: int [M].
    """

    real: np.ndarray
    sampled: np.ndarray
    across: np.ndarray
    patients: np.ndarray

    @classmethod
    def of(cls, real: np.ndarray, patients: np.ndarray, sampled: np.ndarray) -> KernelDistance:
        """Return the distance of features real [M, d], whose patients are `patients` [M], and sampled [N, d]."""
        within, apart = kernel(real, real), patients[:, None] != patients[None]
        others = kernel(sampled, sampled) * (1 - np.eye(len(sampled)))
        return cls(within * apart, others, kernel(real, sampled), patients)

    def weighted(self, weights: np.ndarray) -> np.ndarray:
        """Return KID [R, 1] for weights [R, P + N] of the patients, then of the samples."""
        count = int(self.patients.max()) + 1
        owners, samples = weights[:, :count].astype(float), weights[:, count:].astype(float)
        images = owners[:, self.patients]
        of_one = (owners * np.bincount(self.patients, minlength=count)) ** 2
        within = _mean(images @ self.real * images, images.sum(axis=1) ** 2 - of_one.sum(axis=1))
        others = _mean(samples @ self.sampled * samples, samples.sum(axis=1) ** 2 - (samples**2).sum(axis=1))
        across = _mean(images @ self.across * samples, images.sum(axis=1) * samples.sum(axis=1))
        return (within + others - 2 * across)[:, None]


def kid_of_halves(within: np.ndarray, patients: np.ndarray, halves: np.ndarray) -> np.ndarray:
    """Return KID between the two halves of each of S splits of real images: [S].

    Args:
        within: kernel values, 0 for pairs of one patient: [M, M].
        patients: of each image, int [M].
        halves: bool [S, M], the first half; the images of a patient are in one half.
    """
    owner = patients[:, None] == np.arange(int(patients.max()) + 1)
    first, second = halves.astype(float), (~halves).astype(float)

    def mean_within(half: np.ndarray) -> np.ndarray:
        of_one = ((half @ owner) ** 2).sum(axis=1)
        return _mean(half @ within * half, half.sum(axis=1) ** 2 - of_one)

    across = _mean(first @ within * second, first.sum(axis=1) * second.sum(axis=1))
    return mean_within(first) + mean_within(second) - 2 * across


def _mean(products: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the sum of each row over its number of pairs; NaN without a pair."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, products.sum(axis=1) / pairs, np.nan)


def kid(x: np.ndarray, y: np.ndarray) -> float:
    """Return KID of two sets of features [N, d] and [M, d], each row of which is independent of the others."""
    distance = KernelDistance.of(x, np.arange(len(x)), y)
    return float(distance.weighted(np.ones((1, len(x) + len(y))))[0, 0])


def fid(x: np.ndarray, y: np.ndarray) -> float:
    """Return the Fréchet distance of two Gaussians fitted to features [N, d] and [M, d].

    With centred features A and B over the root of (n - 1), so that the covariances are A'A and B'B, the trace of their
    product's root is the sum of the singular values of A B'. That needs no matrix root, and is exact with fewer
    images than features, where a root of the singular product (MONAI's FIDMetric) is not reliable.
    """
    a = (x - x.mean(axis=0)) / np.sqrt(len(x) - 1)
    b = (y - y.mean(axis=0)) / np.sqrt(len(y) - 1)
    shift = float(((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum())
    return shift + float((a**2).sum() + (b**2).sum()) - 2 * float(_nuclear_norm(a, b))


def _nuclear_norm(a: np.ndarray, b: np.ndarray) -> float:
    """Return the sum of the singular values of A B', by the triangular factors where there are many images."""
    if len(a) > a.shape[1] and len(b) > b.shape[1]:
        return float(np.linalg.svd(_triangle(a) @ _triangle(b).T, compute_uv=False).sum())
    return float(np.linalg.svd(a @ b.T, compute_uv=False).sum())


def _triangle(a: np.ndarray) -> np.ndarray:
    """Return R of A = QR, with R'R = A'A."""
    upper: np.ndarray = np.linalg.qr(a, mode="r")  # type: ignore[assignment]  # the stub is that of another mode
    return upper


def precision_and_recall(
    samples: np.ndarray, real: np.ndarray, patients: np.ndarray, neighbours: int = NEIGHBOURS
) -> tuple[float, float]:
    """Return the share of samples [N, d] on the manifold of real features [M, d], and of real ones on theirs.

    A manifold is the union of balls around its points, each reaching its k-th nearest other point; for a real image,
    of other patients.
    """
    across = cdist(samples, real)
    of_real, of_samples = reach(real, patients, neighbours), reach(samples, np.arange(len(samples)), neighbours)
    precision = (across <= of_real[None]).any(axis=1).mean()
    recall = (across <= of_samples[:, None]).any(axis=0).mean()
    return float(precision), float(recall)


def realism(samples: np.ndarray, real: np.ndarray, patients: np.ndarray, neighbours: int = NEIGHBOURS) -> float:
    """Return the share of samples in a ball of the real manifold that is not larger than the median ball.

    An odd real image, far from all others, has a ball so large that noise is inside it: precision alone is fooled by
    one such image. The realism score of Kynkäänniemi et al., section 5, leaves out the larger half for this reason.
    """
    radii = reach(real, patients, neighbours)
    small = radii <= np.median(radii)
    return float((cdist(samples, real[small]) <= radii[small][None]).any(axis=1).mean())


def reach(features: np.ndarray, patients: np.ndarray, neighbours: int) -> np.ndarray:
    """Return the distance of each row to its k-th nearest row of another patient, the farthest with fewer: [N].

    It is 0 for rows of the only patient.
    """
    distances = np.sort(np.where(patients[:, None] != patients[None], cdist(features, features), np.inf), axis=1)
    others = np.isfinite(distances).sum(axis=1)
    radii = distances[np.arange(len(features)), np.clip(others, 1, neighbours) - 1]
    return np.where(others > 0, radii, 0.0)
