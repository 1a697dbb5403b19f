"""Perceptual distance: by hand, zero where nothing differs, and a map whose mean is the loss."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from pipeline.nn.backbone import BackboneConfig
from pipeline.nn.perceptual import PerceptualConfig, feature_distance, perceptual
from pipeline.nn.rng import Rng

RANDOM = PerceptualConfig(backbone=BackboneConfig(kind="random", depths=(1, 2)))
DEFAULT = PerceptualConfig()


def test_relative_l1_by_hand() -> None:
    # Two positions: |f| sums to 3 and 1, mean 2; |f - f_hat| sums to 1 and 0.
    f = torch.tensor([[[[1.0, 0.0]], [[2.0, -1.0]]]])
    f_hat = torch.tensor([[[[1.0, 0.0]], [[1.0, -1.0]]]])
    assert_close(feature_distance(f, f_hat, "relative_l1"), torch.tensor([[[[0.5, 0.0]]]]))


def test_unit_l2_is_twice_one_minus_the_cosine() -> None:
    f, f_hat = torch.tensor([3.0, 0.0]).reshape(1, 2, 1, 1), torch.tensor([1.0, 1.0]).reshape(1, 2, 1, 1)
    assert_close(feature_distance(f, f_hat, "unit_l2").item(), 2 * (1 - 1 / math.sqrt(2)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", ["relative_l1", "unit_l2"])
def test_equal_images_are_zero_apart_and_others_are_not(kind: str) -> None:
    distance = perceptual(PerceptualConfig(kind=kind))
    x = Rng([1, 2]).uniform(1, 32, 32, low=-1, high=1)
    y = x.clone()
    y[1, :, 8:16, 8:16] = 1.0
    values, maps = distance(x, y), distance.maps(x, y)
    assert values[0] == 0 and values[1] > 0 and maps[0].abs().max() == 0
    assert maps[1, 0, 8:16, 8:16].mean() > 4 * maps[1, 0, 24:, 24:].mean()


def test_gradients_reach_the_reconstruction_and_no_weight() -> None:
    distance = perceptual(RANDOM)
    x = Rng([1]).uniform(1, 16, 16)
    x_hat = torch.zeros_like(x).requires_grad_()
    distance(x, x_hat).sum().backward()
    assert x_hat.grad is not None and torch.isfinite(x_hat.grad).all() and x_hat.grad.abs().max() > 0
    assert all(p.grad is None for p in distance.parameters())


def test_black_images_have_a_finite_distance_and_gradient() -> None:
    for kind in ("relative_l1", "unit_l2"):
        distance = perceptual(PerceptualConfig(backbone=BackboneConfig(kind="random"), kind=kind))
        x_hat = torch.zeros(1, 1, 32, 32, requires_grad=True)
        value = distance(torch.full((1, 1, 32, 32), -1.0), x_hat)
        value.sum().backward()
        assert torch.isfinite(value).all() and torch.isfinite(x_hat.grad).all()


def test_it_is_loaded_once_and_alike_everywhere() -> None:
    torch.manual_seed(9)
    before = torch.get_rng_state()
    first = perceptual(RANDOM)
    perceptual.cache_clear()
    second = perceptual(RANDOM)
    assert torch.equal(torch.get_rng_state(), before)
    assert perceptual(RANDOM) is second is not first
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_volumes_are_compared_too() -> None:
    config = PerceptualConfig(backbone=BackboneConfig(kind="random", depths=(1,)))
    x = Rng([1]).uniform(1, 8, 8, 8)
    assert perceptual(config, 3).maps(x, -x).shape == (1, 1, 8, 8, 8)
