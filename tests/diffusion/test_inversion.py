"""DDIM run backwards: exact on Gaussians, and the round trip's error falls with the steps."""

from __future__ import annotations

import pytest
import torch
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from torch import Tensor
from torch.testing import assert_close

from pipeline.diffusion.sampling import denoise, denoise_until_still, invert, power, row_times, time_grid
from pipeline.nn.rng import Rng

ALPHA_BAR = DDPMScheduler(1000, "linear_beta").alphas_cumprod.double()
MEAN, STD = 0.4, 0.5
START = torch.tensor([[-0.9], [0.1], [1.5]], dtype=torch.float64)


def exact(x_t: Tensor, t: Tensor) -> Tensor:
    a = power(ALPHA_BAR, t, x_t)
    return (1 - a).sqrt() * (x_t - a.sqrt() * MEAN) / (a * STD**2 + 1 - a)


def test_inversion_gives_the_standard_score() -> None:
    # DDIM transports quantiles: x_T = (x_0 - m) / s for Gaussian data, as hardly any signal is left at T.
    x_t = invert(exact, ALPHA_BAR, START, time_grid(999, 1000))
    assert_close(x_t, (START - MEAN) / STD, rtol=0, atol=0.02)


def test_the_error_of_the_round_trip_falls_with_the_steps() -> None:
    errors = []
    for steps in (10, 50, 250):
        grid = time_grid(999, steps)
        back = denoise(exact, ALPHA_BAR, invert(exact, ALPHA_BAR, START, grid), grid, Rng([1, 2, 3]))
        errors.append((back - START).abs().max().item())
    assert errors[0] > 3 * errors[1] > 9 * errors[2] and errors[2] < 0.03


@pytest.mark.parametrize("t", [0, 20, 500, 940])
def test_one_step_back_equals_monai(t: int) -> None:
    theirs = DDIMScheduler(1000, "linear_beta", clip_sample=False)
    theirs.set_timesteps(50)
    x, eps = Rng([4]).normal(1, 6, 6).double(), Rng([5]).normal(1, 6, 6).double()
    expected, _ = theirs.reversed_step(eps, t, x)
    after = torch.tensor([[t + 20]])
    a, b = ALPHA_BAR[t], ALPHA_BAR[t + 20]
    ours = b.sqrt() * (x - (1 - a).sqrt() * eps) / a.sqrt() + (1 - b).sqrt() * eps
    assert_close(ours, expected.double(), rtol=1e-4, atol=1e-5)
    # invert() takes that very step, here from time t with a constant noise, after reaching t without error
    x_0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
    assert_close(invert(lambda x_t, time: eps, ALPHA_BAR, x_0, torch.cat([after, after - 20])), ours)


def test_rows_may_walk_from_times_of_their_own() -> None:
    times = torch.tensor([time_grid(999, 50), time_grid(499, 50)]).T
    noise = torch.tensor([[0.3], [0.3]], dtype=torch.float64)
    both = denoise(exact, ALPHA_BAR, noise, times, Rng([1, 2]))
    assert_close(both[0], denoise(exact, ALPHA_BAR, noise[:1], time_grid(999, 50), Rng([1]))[0])
    assert_close(both[1], denoise(exact, ALPHA_BAR, noise[:1], time_grid(499, 50), Rng([1]))[0])
    assert row_times([5, 3], 2).tolist() == [[5, 5], [3, 3], [-1, -1]]


def test_a_row_that_has_converged_leaves() -> None:
    def predict(x_t: Tensor, t: Tensor) -> Tensor:  # the clean image is 0.7 for the first row, whatever x_t is
        a = power(ALPHA_BAR, t, x_t)
        noise = (x_t - a.sqrt() * 0.7) / (1 - a).sqrt()
        return torch.where(x_t > 5, noise, exact(x_t, t))

    x_t = torch.tensor([[9.0], [1.0]], dtype=torch.float64)
    result, calls = denoise_until_still(predict, ALPHA_BAR, x_t, time_grid(400, 20), change=1e-9)
    assert_close(result[0, 0], torch.tensor(0.7).double())
    assert calls.tolist() == [2, 20]
    assert_close(result[1:], denoise(predict, ALPHA_BAR, x_t[1:], time_grid(400, 20), Rng([2])))
