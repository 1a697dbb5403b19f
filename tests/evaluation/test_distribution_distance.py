"""KID, FID, precision and recall against independent implementations, closed forms and negative controls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors

from pipeline.evaluation.bootstrap import PatientBootstrap
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.distribution_distance import (
    KernelDistance,
    fid,
    kernel,
    kid,
    kid_of_halves,
    precision_and_recall,
    realism,
)

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 6)), 0.3 + 1.2 * RNG.normal(size=(25, 6))


def test_kid_equals_loops_over_pairs() -> None:
    def mean(a: np.ndarray, b: np.ndarray, apart: bool) -> float:
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not apart or i != j]
        return float(np.mean([(sum(a[i] * b[j]) / 6 + 1) ** 3 for i, j in pairs]))

    assert kid(X, Y) == pytest.approx(mean(X, X, True) + mean(Y, Y, True) - 2 * mean(X, Y, False), rel=1e-9)
    assert np.allclose(kernel(X, Y), polynomial_kernel(X, Y, degree=3, gamma=1 / 6, coef0=1))


def test_with_a_linear_kernel_it_is_the_mmd_of_monai(monkeypatch: pytest.MonkeyPatch) -> None:
    from monai.metrics import MMDMetric

    monkeypatch.setattr("pipeline.evaluation.distribution_distance.kernel", lambda a, b: a @ b.T)
    theirs = float(MMDMetric()(torch.tensor(X[:25])[..., None, None], torch.tensor(Y)[..., None, None]))
    assert kid(X[:25], Y) == pytest.approx(theirs, rel=1e-9)


def test_kid_is_unbiased_where_fid_is_not() -> None:
    draws = [RNG.normal(size=(2, 12, 6)) for _ in range(300)]
    kids, fids = ([measure(a, b) for a, b in draws] for measure in (kid, fid))
    assert abs(np.mean(kids)) < 3 * np.std(kids) / 300**0.5
    assert np.mean(fids) > 10 * np.std(fids) / 300**0.5


def test_fid_equals_the_matrix_root_and_the_closed_form_with_many_and_few_images() -> None:
    from monai.metrics import FIDMetric

    root = sqrtm(np.cov(X.T) @ np.cov(Y.T)).real
    shift = ((X.mean(axis=0) - Y.mean(axis=0)) ** 2).sum()
    assert fid(X, Y) == pytest.approx(shift + np.trace(np.cov(X.T) + np.cov(Y.T) - 2 * root), rel=1e-9)
    assert fid(X, Y) == pytest.approx(float(FIDMetric()(torch.tensor(X), torch.tensor(Y))), rel=1e-9)
    few = X[:4]  # fewer images than features: 2 times the mean with the scale 2 gives the trace of the covariance
    assert fid(few, 2 * few) == pytest.approx((few.mean(axis=0) ** 2).sum() + np.trace(np.cov(few.T)), rel=1e-9)
    assert fid(few, few) == pytest.approx(0, abs=1e-9)


def test_precision_and_recall_equal_a_neighbour_search_and_see_what_is_missing() -> None:
    def covered(points: np.ndarray, centres: np.ndarray) -> float:
        radius = NearestNeighbors(n_neighbors=4).fit(centres).kneighbors(centres)[0][:, 3]  # the first is itself
        return float(np.mean([(np.linalg.norm(centres - point, axis=1) <= radius).any() for point in points]))

    assert precision_and_recall(Y, X, np.arange(40)) == pytest.approx((covered(Y, X), covered(X, Y)))
    left, right = RNG.normal(size=(100, 3)) - 20, RNG.normal(size=(100, 3)) + 20
    precision, recall = precision_and_recall(left, np.concatenate([left + 0.1, right]), np.arange(200))
    assert precision > 0.9 and recall < 0.6, "half of the modes are missing"


def test_one_odd_real_image_fools_precision_and_not_realism() -> None:
    real = np.concatenate([RNG.normal(size=(99, 4)), np.full((1, 4), 1000.0)])
    far = 500 + RNG.normal(size=(50, 4))
    assert precision_and_recall(far, real, np.arange(100))[0] == 1
    assert realism(far, real, np.arange(100)) == 0
    assert realism(RNG.normal(size=(50, 4)), real, np.arange(100)) > 0.3


def test_images_of_one_patient_are_not_compared_with_each_other() -> None:
    patients = np.repeat(np.arange(30), 4)
    near_copies = RNG.normal(size=(30, 6))[patients] + 0.01 * RNG.normal(size=(120, 6))
    others = RNG.normal(size=(120, 6))
    distance = KernelDistance.of(near_copies, patients, others)
    clustered = distance.weighted(np.ones((1, 150)))[0, 0]
    assert kid(near_copies, others) - clustered > 0.02, "pairs of one patient are alike, which is not a distance"
    halves = np.array([patients < 15])
    expected = KernelDistance.of(near_copies[:60], patients[:60], near_copies[60:])
    within, rest = distance.real, patients[60:] - 15
    other = KernelDistance.of(near_copies[60:], rest, near_copies[:60])
    apart = [(part.real.sum() / (60**2 - 15 * 16)) for part in (expected, other)]
    assert kid_of_halves(within, patients, halves)[0] == pytest.approx(sum(apart) - 2 * expected.across.mean())


def test_the_interval_covers_the_distance_of_shifted_gaussians() -> None:
    """The kernel's mean over N(0, I) and N(m, I) by a large sample; 40 intervals of 90 % must cover about 36."""
    rng = np.random.default_rng(1)
    truth = kid(rng.normal(size=(1500, 3)), 0.7 + rng.normal(size=(1500, 3)))
    config, covered = EvaluationConfig(resamples=100, confidence=0.9), 0
    for _ in range(40):
        distance = KernelDistance.of(rng.normal(size=(30, 3)), np.arange(30), 0.7 + rng.normal(size=(30, 3)))
        bootstrap = PatientBootstrap.draw(np.repeat([0, 1], 30), config)
        (estimate,) = bootstrap.estimates(bootstrap.sample(distance.weighted, 60))
        covered += estimate.low <= truth <= estimate.high
    assert 30 <= covered <= 40
