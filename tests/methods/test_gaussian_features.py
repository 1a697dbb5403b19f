"""`gaussian_features`: equation 2 against numpy, shrinkage at both ends, and Gaussians that cannot stay empty."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from pipeline.errors import ArtefactError, EmptySelection
from pipeline.methods.gaussian_features import GaussianFeatures, GaussianFeaturesConfig
from pipeline.nn.backbone import BackboneConfig
from pipeline.nn.local_gaussian import FLOOR, Moments, mahalanobis, whitening
from pipeline.nn.rng import Rng
from pipeline.types import Batch


def batch_of(x: Tensor) -> Batch:
    return Batch(x, torch.ones_like(x[:, :1], dtype=torch.bool), tuple(str(i) for i in range(len(x))))


def images(count: int, key: int = 1) -> Tensor:
    return Rng([key + i for i in range(count)]).uniform(1, 16, 16, low=-1, high=1)


def fitted(x: Tensor, seed: int = 0, **values: object) -> GaussianFeatures:
    backbone = BackboneConfig(kind="random", depths=(1, 2))
    method = GaussianFeaturesConfig(**{"backbone": backbone, "projection": 5, **values}).build(16, seed=seed)
    assert isinstance(method, GaussianFeatures)
    method.finish(batch_of(part) for part in x.split(3))
    return method


def test_without_positions_the_map_is_the_mahalanobis_distance_of_numpy() -> None:
    x, y = images(8), images(2, key=50)
    method = fitted(x, positions=False)
    rows = method.vectors(method.features(x)).flatten(0, 1).double().numpy()
    covariance = np.cov(rows.T, bias=True)
    covariance += FLOOR * np.diag(covariance).mean() * np.eye(5)
    shift = method.vectors(method.features(y)).flatten(0, 1).double().numpy() - rows.mean(axis=0)
    distance = np.sqrt(np.einsum("nf,fg,ng->n", shift, np.linalg.inv(covariance), shift)).reshape(2, 1, 8, 8)
    expected = F.interpolate(torch.from_numpy(distance), (16, 16), mode="bilinear", align_corners=False).float()
    assert_close(method.anomaly_map(y, Rng([0, 1])), expected, rtol=1e-3, atol=1e-3)


def test_a_position_with_many_images_has_its_own_gaussian_and_one_without_images_the_shared_one() -> None:
    draws = Rng([7]).normal(4000, 3, 2)[0].double() * torch.tensor([1.0, 3.0]) + torch.tensor([[0.0], [5.0], [9.0]])
    inside = torch.ones(4000, 3, dtype=torch.bool)
    inside[:, 2] = False
    moments = Moments()
    for rows in range(0, 4000, 1000):
        moments.add(draws[rows : rows + 1000], inside[rows : rows + 1000])
    mean, covariance = moments.shrunk(prior_images=1.0)
    assert_close(mean[1], draws[:, 1].mean(dim=0), rtol=1e-2, atol=1e-2)
    assert_close(covariance[1], torch.cov(draws[:, 1].T), rtol=1e-2, atol=1e-2)
    shared = draws[:, :2].flatten(0, 1).mean(dim=0)
    assert_close(mean[2], shared)
    within = (torch.cov(draws[:, 0].T) + torch.cov(draws[:, 1].T)) / 2
    assert_close(covariance[2], within, rtol=1e-2, atol=1e-2)
    assert_close(moments.shrunk(1e12)[1][0], covariance[2], rtol=1e-2, atol=1e-2)


def test_whitening_makes_distances_of_the_inverse_covariance() -> None:
    factor = Rng([3]).normal(4, 4)[0].double()
    covariance = factor @ factor.T + torch.eye(4)
    x, mean = Rng([4]).normal(6, 1, 4)[0].double(), torch.ones(1, 4, dtype=torch.float64)
    shift = (x - mean)[:, 0]
    expected = torch.einsum("nf,fg,ng->n", shift, covariance.inverse(), shift).sqrt()
    assert_close(mahalanobis(x, mean, whitening(covariance, covariance)[None])[:, 0], expected, rtol=1e-3, atol=1e-3)


def test_a_shift_of_one_corner_is_found_at_its_place_only_with_positions() -> None:
    x = images(40) * 0.05
    x[..., 8:, 8:] += 0.8  # every normal image is bright there
    y = x[:1].clone()
    y[..., 8:, 8:] -= 0.8  # as dark as the rest of any normal image
    near, shared = (
        fitted(x, positions=positions, prior_images=5.0).anomaly_map(y, Rng([0])) for positions in (True, False)
    )
    assert near[..., 10:, 10:].mean() > 5 * near[..., :6, :6].mean()
    assert shared[..., 10:, 10:].mean() < 3 * shared[..., :6, :6].mean()


def test_jittered_passes_make_noise_normal_and_depend_on_the_seed_alone() -> None:
    x = images(12) * 0.2
    noisy = (x + 0.3 * images(12, key=90)).clamp(-1, 1)
    settings = {"passes": 4, "intensity": {"noise": 0.6}, "positions": False}
    plain, varied, again = fitted(x, positions=False), fitted(x, **settings), fitted(x, **settings)
    maps = [method.anomaly_map(noisy, Rng(range(12))).mean() for method in (plain, varied)]
    assert maps[1] < 0.6 * maps[0]
    assert torch.equal(varied.white, again.white) and not torch.equal(varied.white, fitted(x, 1, **settings).white)


def test_no_gaussians_are_refused() -> None:
    with pytest.raises(ArtefactError):
        GaussianFeaturesConfig(backbone=BackboneConfig(kind="random")).build(16).anomaly_map(images(1), Rng([0]))
    nobody = replace(batch_of(images(2)), body=torch.zeros(2, 1, 16, 16, dtype=torch.bool))
    method = GaussianFeaturesConfig(backbone=BackboneConfig(kind="random")).build(16)
    with pytest.raises(EmptySelection):
        method.finish([nobody])
