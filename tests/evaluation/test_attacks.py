"""Attacks: closed forms on linear models, what EOT and BPDA differentiate, and the ball that nothing leaves."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.testing import assert_close

from pipeline.errors import ConfigError
from pipeline.evaluation.attacks import (
    AttackConfig,
    attack,
    behind,
    expected,
    passing,
    project,
    slope,
)
from pipeline.nn.rng import Rng

KEYS = Rng([3, 4, 5])


def images(keys: Rng = KEYS, low: float = -1.0, high: float = 1.0) -> Tensor:
    return keys.fork("images").uniform(1, 6, 6, low=low, high=high)


def linear(weights: Tensor) -> object:
    return lambda x, rng: (x * weights).flatten(1).sum(dim=1)


def test_pgd_reaches_the_optimum_of_a_linear_model() -> None:
    """Of all images within epsilon, w x is highest at x + epsilon sign(w), clipped to the range of images."""
    x, w, config = images(), Rng([1]).normal(1, 6, 6), AttackConfig(epsilon=0.3, steps=10)
    best = (x + 0.3 * w.sign()).clamp(-1, 1)
    assert_close(attack(linear(w), x, KEYS, config), best)


def test_each_row_is_attacked_on_its_own_and_repeatably() -> None:
    x, config = images(), AttackConfig(steps=3)

    def bumpy(x: Tensor, rng: Rng) -> Tensor:
        return (x * (1 + rng.normal(1, 6, 6))).sin().flatten(1).sum(dim=1)

    whole = attack(bumpy, x, KEYS, config)
    assert torch.equal(attack(bumpy, x[1:2], KEYS.rows([1]), config)[0], whole[1])
    assert not torch.equal(attack(bumpy, x, KEYS.fork("again"), config), whole)


@pytest.mark.parametrize("step_share", [0.1, 2.0])
def test_nothing_leaves_the_ball_or_the_range(step_share: float) -> None:
    x, config = images(low=-1.2, high=1.2), AttackConfig(epsilon=0.1, steps=4, step_share=step_share)
    attacked = attack(linear(Rng([2]).normal(1, 6, 6)), x, KEYS, config)
    assert (attacked - x).abs().max() <= 0.1 + 1e-6
    assert (attacked.abs() <= torch.maximum(x.abs(), torch.ones_like(x)) + 1e-6).all()
    inside = project(torch.full_like(x, 9.0), x, 0.1)
    assert_close(inside, torch.minimum(x + 0.1, x.clamp(min=1)))


def test_the_best_point_on_the_way_is_returned() -> None:
    """A step of twice epsilon leaps over the peak at the image itself, which only the start comes near."""
    x, config = torch.zeros(3, 1, 6, 6), AttackConfig(epsilon=0.5, steps=5, step_share=2.0)

    def peak(x: Tensor, rng: Rng) -> Tensor:
        return -x.square().flatten(1).sum(dim=1)

    attacked = peak(attack(peak, x, KEYS, config), KEYS)
    start = (2 * KEYS.fork("start").uniform(1, 6, 6) - 1) * 0.5
    assert (attacked >= peak(start, KEYS)).all() and (attacked > peak(torch.full_like(x, 0.5), KEYS)).all()


def test_eot_has_the_gradient_of_a_smoothed_linear_model() -> None:
    """Of w (x n) with noise n of mean 2, EOT's gradient is 2 w: each of 1000 draws is w n, with a spread of |w|."""
    x, w, draws = images(Rng([7])), Rng([1]).normal(1, 6, 6), 1000

    def noisy(x: Tensor, rng: Rng) -> Tensor:
        return (x * (2 + rng.normal(1, 6, 6)) * w).flatten(1).sum(dim=1)

    error = (slope(expected(noisy, draws), x, Rng([7]))[1] - 2 * w).abs() / w.abs()
    assert error.max() < 6 / draws**0.5
    assert (slope(noisy, x, Rng([7]))[1] - 2 * w).abs().max() > 1, "a single draw is far from it"


def test_full_gradient_and_bpda_differ_as_they_must() -> None:
    """The defence 3 x has the gradient 3 w; passed as the identity it has w, at the same value."""
    x, w = images(), Rng([1]).normal(1, 6, 6)

    def triple(x: Tensor, rng: Rng) -> Tensor:
        return 3 * x

    full, passed = (slope(behind(linear(w), one), x, KEYS) for one in (triple, passing(triple)))
    assert_close(full[0], passed[0])
    assert_close(full[1], (3 * w).expand_as(x))
    assert_close(passed[1], w.expand_as(x))


@pytest.mark.parametrize(
    "values", [{"epsilon": 0}, {"epsilon": 1.5}, {"steps": 0}, {"step_share": 0}, {"draws": 0}, {"epsilon": "strong"}]
)
def test_a_strength_out_of_range_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(values))):
        AttackConfig(**values)


def test_what_has_no_gradient_is_refused() -> None:
    with pytest.raises(ConfigError, match="BPDA"):
        attack(lambda x, rng: x.detach().flatten(1).sum(dim=1), images(), KEYS, AttackConfig(steps=1))
    with pytest.raises(ConfigError, match="draws"):
        expected(linear(torch.ones(1, 6, 6)), 0)
