"""`rectified_flow`: with Gaussian images the exact velocity is known; the method must then be exact too."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.errors import ConfigError
from pipeline.methods.rectified_flow import RectifiedFlow, RectifiedFlowConfig
from pipeline.nn.rng import Rng
from pipeline.types import Batch

MEAN, STD = 0.2, 0.15  # every pixel N(MEAN, STD^2), far enough inside [-1, 1] that clipping does not act
TINY = {"denoiser": {"patch": 1, "widths": (8,), "attention": (False,)}}


class Exact(nn.Module):
    """E[x - eps | x_t] or E[x | x_t] for independent Gaussian pixels; the network receives times as 0 .. 1000."""

    def __init__(self, prediction: str) -> None:
        super().__init__()
        self.prediction = prediction

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        t = t.reshape(-1, 1, 1, 1) / 1000
        centred = (x_t - (1 - t) * MEAN) / ((1 - t) ** 2 * STD**2 + t**2)
        noise = t if self.prediction == "velocity" else 0
        return MEAN + ((1 - t) * STD**2 - noise) * centred


def exact(**settings: object) -> RectifiedFlow:
    method = RectifiedFlowConfig(**TINY, **settings).build(16)
    method.network = Exact(method.config.prediction)
    return method


@pytest.mark.parametrize("prediction", ["velocity", "x0"])
@pytest.mark.parametrize(("solver", "steps"), [("euler", 200), ("heun", 50)])
def test_samples_have_the_mean_and_spread_of_the_data(solver: str, steps: int, prediction: str) -> None:
    samples = exact(prediction=prediction).sample(Rng(range(30)), steps=steps, solver=solver)
    pixels = samples.numel()
    assert abs(samples.mean() - MEAN) < 5 * STD / math.sqrt(pixels) + 0.002
    assert abs(samples.std() / STD - 1) < 5 / math.sqrt(2 * pixels) + 0.03


def test_reconstruction_pulls_an_outlier_to_the_data_by_the_known_factor() -> None:
    # The flow transports quantiles: x_t with mean (1 - t) x has the standard score (x_t - (1 - t) m) / spread(t), and
    # x_hat = m + s * score. Averaged over the noise: x_hat - m = (x - m) s (1 - t) / spread(t).
    method = exact(start_times=(0.4,), steps=50, solver="heun")
    x_hat = method.reconstruct(torch.full((60, 1, 16, 16), 0.8), Rng(range(60)))
    factor = STD * 0.6 / math.sqrt(0.6**2 * STD**2 + 0.4**2)
    assert x_hat.mean().item() - MEAN == pytest.approx((0.8 - MEAN) * factor, rel=0.03)


def test_several_start_times_in_one_batch_are_each_alone_with_noise_of_its_own() -> None:
    x = Rng([9, 8]).normal(1, 16, 16) * STD + MEAN
    method = exact(start_times=(0.3, 0.6))
    both, (first, second) = method.reconstruct(x, Rng([4, 5])), method.flow.from_starts(method, x, Rng([4, 5]))
    assert_close(both, (first + second) / 2)
    assert_close(first, exact(start_times=(0.3,)).reconstruct(x, Rng([4, 5])))
    assert torch.corrcoef(torch.stack([(first - x).flatten(), (second - x).flatten()]))[0, 1].abs() < 0.9


def test_the_loss_is_eq_1_at_a_uniform_time() -> None:
    # The exact velocity's error at time t is Var[x - eps | x_t] = s^2 / ((1 - t)^2 s^2 + t^2), to be averaged over t.
    x = Rng(range(500)).normal(1, 16, 16) * STD + MEAN
    terms = exact().loss(Batch(x, x > 9, tuple(map(str, range(500)))), "train", Rng(range(1000, 1500)))
    t = torch.linspace(0, 1, 10_001)
    per_time = STD**2 / ((1 - t) ** 2 * STD**2 + t**2)
    assert abs(terms["velocity"] - per_time.mean()) < 5 * per_time.std() / math.sqrt(500)


def test_the_error_of_the_image_is_that_of_the_velocity_but_near_the_image() -> None:
    x, times = Rng(range(50)).normal(1, 16, 16), Rng(range(50)).uniform(low=0.05, high=1.0)
    eps, guess = Rng(range(50, 100)).normal(1, 16, 16), 0.5 * x
    t = times.reshape(-1, 1, 1, 1)
    x_t = (1 - t) * x + t * eps
    of_velocity = exact().flow.error((guess - x_t) / t, x - eps, times)
    assert_close(exact(prediction="x0").flow.error(guess, x, times), of_velocity, rtol=1e-3, atol=0)
    early = torch.full((50,), 1e-4)
    assert_close(exact(prediction="x0").flow.error(guess, x, early), 400 * (guess - x).square().mean())


def test_an_unknown_solver_is_refused() -> None:
    with pytest.raises(ConfigError, match="euler"):
        RectifiedFlowConfig(**TINY).build(16).sample(Rng([1]), steps=2, solver="rk4")
