"""The importance-sampled bound on a linear Gaussian model, whose likelihood is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal
from torch.testing import assert_close

from pipeline.nn.gaussian import StandardNormal
from pipeline.nn.importance import importance_bound
from pipeline.nn.rng import Rng

WEIGHT, STD = 0.8, 0.5  # x = WEIGHT z + STD eps with z ~ N(0, 1): x ~ N(0, WEIGHT^2 + STD^2)
VARIANCE = WEIGHT**2 + STD**2


def bound(x: Tensor, samples: int, mean: float, variance: float, first: int = 0) -> Tensor:
    """The bound with q(z|x) = N(mean x, variance)."""

    def encode(images: Tensor) -> tuple[Tensor, Tensor]:
        flat = images.flatten(1)
        return mean * flat, torch.full_like(flat, math.log(variance))

    def decode(z: Tensor) -> Tensor:
        return WEIGHT * z[..., None, None]

    rng = Rng(range(first, first + len(x)))
    return importance_bound(x, encode, decode, StandardNormal(), STD, samples, rng)


def test_with_the_true_posterior_one_sample_is_the_likelihood() -> None:
    x = Rng([1, 2, 3]).normal(1, 1, 1)
    expected = Normal(0.0, VARIANCE**0.5).log_prob(x).flatten()
    for samples in (1, 5):
        assert_close(bound(x, samples, WEIGHT / VARIANCE, STD**2 / VARIANCE), expected, rtol=1e-4, atol=1e-5)


def test_one_sample_is_the_elbo_and_more_of_them_come_closer_from_below() -> None:
    # q(z|x) = N(0, 0.5) whatever x is: the ELBO is E_q[log p(x|z)] - KL(q || N(0, 1)) in closed form.
    value, variance, count = 1.1, 0.5, 4000
    x = torch.full((count, 1, 1, 1), value)
    likelihood = float(Normal(0.0, VARIANCE**0.5).log_prob(torch.tensor(value)))
    squares = (value**2 + WEIGHT**2 * variance) / STD**2
    elbo = -0.5 * (squares + math.log(2 * math.pi * STD**2)) - 0.5 * (variance - 1 - math.log(variance))
    means, errors = {}, {}
    for samples in (1, 4, 32):
        draws = bound(x, samples, 0.0, variance, first=10_000 * samples)
        means[samples], errors[samples] = float(draws.mean()), float(draws.std()) / count**0.5
    assert means[1] == pytest.approx(elbo, abs=4 * errors[1])
    assert elbo < means[4] - 4 * errors[4] and means[4] < means[32] - 4 * errors[4]
    assert likelihood - 0.1 < means[32] < likelihood + 4 * errors[32]


def test_rows_follow_their_keys() -> None:
    x = Rng([1, 2, 3]).normal(1, 1, 1)
    assert_close(bound(x[1:], 3, 0.1, 0.5, first=1), bound(x, 3, 0.1, 0.5)[1:])
