"""Quantities that a denoiser may predict: each conversion in closed form, and the three agree."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch.testing import assert_close

from pipeline.diffusion.prediction import Prediction, target, to_eps


def test_by_hand() -> None:
    # a = 0.64: x_t = 0.8 x_0 + 0.6 eps = 0.8 * 0.5 + 0.6 * 2 = 1.6, v = 0.8 eps - 0.6 x_0 = 1.6 - 0.3 = 1.3.
    x_0, eps, a, x_t = (torch.tensor(value) for value in (0.5, 2.0, 0.64, 1.6))
    assert_close(target("v", x_0, eps, a), torch.tensor(1.3))
    assert target("epsilon", x_0, eps, a) is eps and target("x0", x_0, eps, a) is x_0
    assert_close(to_eps("v", torch.tensor(1.3), x_t, a), eps)
    assert_close(to_eps("x0", x_0, x_t, a), eps)


@pytest.mark.parametrize("kind", get_args(Prediction))
def test_the_noise_comes_back_at_every_time(kind: Prediction) -> None:
    generator = torch.Generator().manual_seed(1)
    x_0, eps = torch.randn(2, 9, 1, 4, 4, generator=generator, dtype=torch.float64)
    a = torch.linspace(0.01, 0.99, 9, dtype=torch.float64).reshape(-1, 1, 1, 1)
    x_t = a.sqrt() * x_0 + (1 - a).sqrt() * eps
    assert_close(to_eps(kind, target(kind, x_0, eps, a), x_t, a), eps)
