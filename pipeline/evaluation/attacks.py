"""Adversarial attacks: the smallest changes of an image that do most to an answer about it.

`attack` is projected gradient descent (PGD; Madry et al., arXiv:1706.06083, section 2.1), here ascent on any objective
of the image, within an L-infinity ball of the image and the range of images. An attack that knows a random defence
follows the gradient of the objective's expectation (EOT; Athalye et al., arXiv:1707.07397, equation 2): `expected`. One
that knows a defence without a usable gradient passes it as if it were the identity (BPDA; Athalye et al.,
arXiv:1802.00420, section 4.1): `passing`. A defence that withstands only an attack that does not know it withstands
little (arXiv:1802.00420, section 3).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.nn.gradients import keep_gradients
from pipeline.nn.rng import Rng
from pipeline.nn.sampling_options import require_between

Objective = Callable[[Tensor, Rng], Tensor]  # (images [B, C, *spatial], streams) -> what the attack raises, [B]
Defence = Callable[[Tensor, Rng], Tensor]  # (images, streams) -> images of the same shape

LOW, HIGH = -1.0, 1.0  # range of images


class AttackConfig(Config):
    """Strength and effort of an attack."""

    epsilon: float = Field(
        8 / 127.5, gt=0, le=1, description="largest change of a pixel; images are in [-1, 1], so 8 of 255 grey levels"
    )
    steps: int = Field(10, ge=1, le=1000, description="steps along the gradient's sign")
    step_share: float = Field(0.25, gt=0, le=2, description="length of a step / epsilon")
    draws: int = Field(
        4, ge=1, le=1000, description="draws of a random defence's noise per step, over which the gradient is averaged"
    )


def attack(objective: Objective, x: Tensor, rng: Rng, config: AttackConfig) -> Tensor:
    """Return images near x that raise the objective, float32 [B, C, *spatial]; each row is attacked on its own.

    Begins at a random point of the ball. Of all points on the way, x included, the one of the highest objective is
    returned, as it was computed there.

    Args:
        objective: differentiable; row i may depend on image i and stream i alone.
        x: images in [-1, 1]; pixels outside stay where they are or move inwards.
        rng: one stream per row: the start, and new noise for the objective at each step.
        config: strength and effort.

    Raises:
        ConfigError: the objective has no gradient.
    """
    x = x.detach().float()
    start = (2 * rng.fork("start").uniform(*x.shape[1:]) - 1) * config.epsilon
    now, best = project(x + start, x, config.epsilon), x
    highest = torch.full((len(x),), -torch.inf, device=x.device)
    for step in range(config.steps + 1):
        value, gradient = slope(objective, now, rng.fork(step))
        better = value > highest
        highest = torch.where(better, value, highest)
        best = torch.where(_rows(better, x), now, best)
        now = project(now + config.step_share * config.epsilon * gradient.sign(), x, config.epsilon)
    return best


def slope(objective: Objective, x: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
    """Return the objective [B] and its gradient [B, C, *spatial] at x.

    Raises:
        ConfigError: it has none.
    """
    with keep_gradients():
        x = x.detach().requires_grad_()
        value = objective(x, rng)
        if not value.requires_grad:
            raise ConfigError(
                "The attacked function has no gradient with respect to the image, which PGD needs. Attack a "
                "differentiable method, or bypass its defence (BPDA)."
            )
        (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach().float(), gradient


def project(near: Tensor, x: Tensor, epsilon: float) -> Tensor:
    """Return the nearest images to `near` within `epsilon` of x and, where x allows it, within [-1, 1]."""
    low = torch.maximum(x - epsilon, torch.minimum(x, torch.full_like(x, LOW)))
    high = torch.minimum(x + epsilon, torch.maximum(x, torch.full_like(x, HIGH)))
    return torch.minimum(torch.maximum(near, low), high)


def expected(objective: Objective, draws: int) -> Objective:
    """Return the mean of an objective over several draws of its noise (EOT), from forks of each row's stream.

    Raises:
        ConfigError: fewer than one draw.
    """
    require_between("draws", draws, 1, 1000)
    if draws == 1:
        return objective

    def mean(x: Tensor, rng: Rng) -> Tensor:
        """Return the mean objective of each row."""
        return torch.stack([objective(x, rng.fork(f"draw {number}")) for number in range(draws)]).mean(dim=0)

    return mean


def passing(defence: Defence) -> Defence:
    """Return a defence with its own output and the gradient of the identity (BPDA)."""

    def defended(x: Tensor, rng: Rng) -> Tensor:
        """Return the defence's output."""
        with torch.no_grad():
            change = defence(x, rng) - x
        return x + change

    return defended


def behind(objective: Objective, defence: Defence) -> Objective:
    """Return an objective of what a defence makes of an image; the defence draws from a fork of each row's stream."""
    return lambda x, rng: objective(defence(x, rng.fork("defence")), rng)


def _rows(chosen: Tensor, like: Tensor) -> Tensor:
    return chosen.reshape(-1, *[1] * (like.ndim - 1))
