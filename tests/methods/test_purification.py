"""Purification of Gaussian data by exact networks: the closed forms of noising and of both ways back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.methods import build_method, parse_method
from pipeline.nn.rng import Rng

STD, VALUE = 0.2, 0.3  # of the data, whose mean is 0; of every pixel that is purified
NET = {"widths": [8], "attention": [False], "patch": 1}


class ExactNoise(nn.Module):
    """E[eps | x_t] = sqrt(1 - a) x_t / (a s^2 + 1 - a)."""

    def __init__(self, alpha_bar: Tensor) -> None:
        super().__init__()
        self.alpha_bar = alpha_bar

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        a = self.alpha_bar[t].reshape(-1, 1, 1, 1)
        return (1 - a).sqrt() / (a * STD**2 + 1 - a) * x_t


class ExactVelocity(nn.Module):
    """E[x - eps | x_t] = ((1 - t) s^2 - t) x_t / ((1 - t)^2 s^2 + t^2), for times 0 .. 1000."""

    def forward(self, x_t: Tensor, time: Tensor) -> Tensor:
        t = (time / 1000).reshape(-1, 1, 1, 1)
        return ((1 - t) * STD**2 - t) / ((1 - t) ** 2 * STD**2 + t**2) * x_t


def purified(method: Any, time: float, steps: int) -> Tensor:
    return method.purify(torch.full((8, 1, 32, 32), VALUE), Rng(range(8)), time, steps)


@pytest.mark.parametrize("time", [0.1, 0.3])
def test_ddpm_draws_from_the_posterior_given_the_noisy_image(time: float) -> None:
    """With k = sqrt(a) s^2 / (a s^2 + 1 - a): mean k sqrt(a) x, variance (1 - a) (k^2 + s^2 / (a s^2 + 1 - a))."""
    method: Any = build_method(parse_method({"name": "ddpm", "noise": "gaussian", "denoiser": NET}), 32)
    method.network = ExactNoise(method.process.alpha_bar)
    a = float(method.process.alpha_bar[round(1000 * time) - 1])
    k = a**0.5 * STD**2 / (a * STD**2 + 1 - a)
    variance = k**2 * (1 - a) + STD**2 * (1 - a) / (a * STD**2 + 1 - a)
    x = purified(method, time, 100)  # 8192 pixels: the mean is known to 0.002, the deviation to one in a hundred
    assert float(x.mean()) == pytest.approx(k * a**0.5 * VALUE, abs=0.015)
    assert float(x.std()) == pytest.approx(variance**0.5, rel=0.08)


@pytest.mark.parametrize("time", [0.2, 0.6])
def test_rectified_flow_scales_the_noisy_image(time: float) -> None:
    """The flow of Gaussian data takes x_t to s x_t / sqrt((1 - t)^2 s^2 + t^2)."""
    method: Any = build_method(parse_method({"name": "rectified_flow", "denoiser": NET, "solver": "heun"}), 32)
    method.network = ExactVelocity()
    scale = STD / ((1 - time) ** 2 * STD**2 + time**2) ** 0.5
    x = purified(method, time, 200)
    assert float(x.mean()) == pytest.approx(scale * (1 - time) * VALUE, abs=0.015)
    assert float(x.std()) == pytest.approx(scale * time, rel=0.05)
