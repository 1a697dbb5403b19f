"""Restoration at test time: closed forms of linear models, and the conditions of an optimum."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.nn.energy import RestorationConfig, normal_version, restored_image, searched_code
from pipeline.nn.gaussian import Mixture, StandardNormal
from pipeline.nn.rng import Rng

STD, BETA = 0.5, 3.0
W = STD**2 * BETA  # the weight of one nat of the prior beside half a squared error


def config(search: str, weight: float = 0.0, steps: int = 1000, rate: float = 0.02) -> Any:
    restoration = RestorationConfig(search=search, weight=weight, steps=steps, rate=rate)
    return SimpleNamespace(decoder_std=STD, beta=BETA, restoration=restoration)


def test_the_code_of_a_linear_decoder_is_the_posterior_mode() -> None:
    # min |y - A z|^2 / 2 + w |z|^2 / 2: z = (A'A + w)^-1 A' y. The encoder, which is wrong, decides the start alone.
    a, y = Rng([1]).normal(6, 3)[0], Rng([2, 3]).normal(1, 2, 3)
    mode = torch.linalg.solve(a.T @ a + W * torch.eye(3), a.T @ y.flatten(1).T).T
    restored = normal_version(
        y, lambda x: (torch.ones(2, 3), torch.zeros(2, 3)), lambda z: (z @ a.T).view(-1, 1, 2, 3), StandardNormal(),
        config("latent"),
    )  # fmt: skip
    assert_close(restored, (mode @ a.T).view(-1, 1, 2, 3), atol=1e-4, rtol=0)


def test_the_code_is_pulled_to_the_prior_that_is_given() -> None:
    # One pixel that is its own code, prior N(2, e): z = (y + 2 w / e) / (1 + w / e).
    prior, y = Mixture(torch.tensor([[2.0]]), torch.tensor([[1.0]])), torch.tensor([[[[0.3]]], [[[-1.0]]]])
    pull = W / torch.e
    restored = normal_version(
        y, lambda x: (x.flatten(1), 0 * x.flatten(1)), lambda z: z.view(-1, 1, 1, 1), prior, config("latent")
    )
    assert_close(restored, (y + 2 * pull) / (1 + pull), atol=1e-4, rtol=0)


def test_pixels_nearer_to_normal_than_the_weight_stay_and_others_come_that_near() -> None:
    # Normal is m whatever the image: min (x - m)^2 / 2 + weight |x - y| is m moved towards y by the weight at most.
    y, m, weight = Rng([4]).normal(1, 8, 8), 0.2, 0.5
    restored = normal_version(
        y, lambda x: (torch.zeros(1, 2), torch.zeros(1, 2)), lambda z: torch.full_like(y, m), StandardNormal(),
        config("image", weight, steps=400, rate=0.5),
    )  # fmt: skip
    near = (y - m).abs() <= weight
    assert 10 < near.sum() < 54
    assert torch.equal(restored[near], y[near])
    assert_close(restored[~near], (m + weight * (y - m).sign())[~near], atol=1e-5, rtol=0)


def test_an_image_pays_for_its_code() -> None:
    # One pixel, mu = x, decoded to m always: min (x - m)^2 / 2 + w x^2 / 2 is m / (1 + w).
    y = torch.tensor([[[[0.9]]]])
    restored = normal_version(
        y, lambda x: (x.flatten(1), 0 * x.flatten(1)), lambda z: torch.full_like(y, 0.4), StandardNormal(),
        config("image", steps=400, rate=0.3),
    )  # fmt: skip
    assert_close(restored, torch.full_like(y, 0.4 / (1 + W)), atol=1e-5, rtol=0)


def test_the_restored_image_meets_the_conditions_of_an_optimum() -> None:
    # A linear autoencoder (PCA): the energy is |(1 - P) x|^2 / 2. Where x moved, its slope is the weight, against the
    # move; where it stayed, the slope is below the weight.
    basis = torch.linalg.qr(Rng([5]).normal(64, 4)[0])[0]
    y, weight = Rng([6]).normal(1, 8, 8), 0.6

    def rest(x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return flat - flat @ basis @ basis.T

    settings = RestorationConfig(steps=500, rate=0.5, weight=weight)
    x = restored_image(y, lambda x: 0.5 * rest(x).square().sum(dim=1), settings)
    slope, moved = rest(x), (x - y).flatten(1)
    stayed = moved == 0
    assert 5 < stayed.sum() < 60
    assert (slope[stayed].abs() <= weight + 1e-4).all()
    assert_close(slope[~stayed], -weight * moved[~stayed].sign(), atol=1e-4, rtol=0)


def test_a_row_is_searched_for_alone_and_nothing_else_moves() -> None:
    y = Rng([1, 2, 3]).normal(5)
    settings = RestorationConfig(steps=5, rate=0.1)
    before = y.clone()
    together = searched_code(y, lambda z: z.square().sum(dim=1), settings)
    assert torch.equal(y, before)
    assert torch.equal(searched_code(y[1:2], lambda z: z.square().sum(dim=1), settings)[0], together[1])
