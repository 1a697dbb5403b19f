"""`ddpm`: with Gaussian images the exact denoiser is known; the method must then sample and reconstruct exactly."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.errors import ConfigError
from pipeline.methods.ddpm import DdpmConfig, DiffusionModel
from pipeline.nn.rng import Rng
from pipeline.types import Batch

MEAN, STD = 0.2, 0.15  # every pixel N(MEAN, STD^2), far enough inside [-1, 1] that clipping does not act


class Exact(nn.Module):
    """E[eps | x_t] for independent Gaussian pixels."""

    def __init__(self, alpha_bar: Tensor) -> None:
        super().__init__()
        self.alpha_bar = alpha_bar

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        a = self.alpha_bar[t].reshape(-1, 1, 1, 1)
        return (1 - a).sqrt() * (x_t - a.sqrt() * MEAN) / (a * STD**2 + 1 - a)


def exact(**settings: object) -> DiffusionModel:
    method = DdpmConfig(widths=(8,), attention=(False,), noise="gaussian", **settings).build(16)
    method.network = Exact(method.schedule.alphas_cumprod)
    return method


@pytest.mark.parametrize(("eta", "steps"), [(1.0, None), (0.0, 1000)])
def test_samples_have_the_mean_and_spread_of_the_data(eta: float, steps: int | None) -> None:
    samples = exact().sample(Rng(range(30)), steps=steps, eta=eta)
    pixels = samples.numel()
    assert abs(samples.mean() - MEAN) < 5 * STD / math.sqrt(pixels) + 0.002
    assert abs(samples.std() / STD - 1) < 5 / math.sqrt(2 * pixels) + 0.03
    across = torch.corrcoef(samples.flatten(1).T[:40])
    assert (across - torch.eye(40)).abs().mean() < 0.2  # independent pixels stay independent (30 samples: 0.15)


def test_reconstruction_pulls_an_outlier_to_the_data_by_the_known_factor() -> None:
    # DDIM transports quantiles: x_t with mean sqrt(a) x has the standard score (x_t - sqrt(a) m) / sqrt(a s^2 + 1 - a),
    # and x_hat = m + s * score. Averaged over the noise: x_hat - m = (x - m) s sqrt(a) / sqrt(a s^2 + 1 - a).
    method = exact(start_times=(300,), steps=300)
    a = method.schedule.alphas_cumprod[300]
    x = torch.full((60, 1, 16, 16), 0.8)
    x_hat = method.reconstruct(x, Rng(range(60)))
    factor = STD * a.sqrt() / (a * STD**2 + 1 - a).sqrt()
    assert_close(x_hat.mean() - MEAN, (0.8 - MEAN) * factor, rtol=0.03, atol=0.003)


def test_several_start_times_are_averaged_each_with_noise_of_its_own() -> None:
    x = Rng([9]).normal(1, 16, 16) * STD + MEAN
    both = exact(start_times=(100, 200), steps=5).reconstruct(x, Rng([4]))
    single = [exact(start_times=(t0,), steps=5).reconstruct(x, Rng([4])) for t0 in (100, 200)]
    assert_close(both, (single[0] + single[1]) / 2)


def test_the_loss_is_l_simple_at_a_uniform_time() -> None:
    # The exact denoiser's error at time t is Var[eps | x_t] = a s^2 / (a s^2 + 1 - a), to be averaged over all t.
    method = exact()
    x = Rng(range(500)).normal(1, 16, 16) * STD + MEAN
    terms = method.loss(Batch(x, x > 9, tuple(map(str, range(500)))), "train", Rng(range(1000, 1500)))
    a = method.schedule.alphas_cumprod
    per_time = a * STD**2 / (a * STD**2 + 1 - a)
    assert abs(terms["noise"] - per_time.mean()) < 5 * per_time.std() / math.sqrt(500)


def test_the_schedule_is_that_of_the_paper() -> None:
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    assert_close(exact().schedule.alphas_cumprod.double(), (1 - betas).cumprod(0), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("noise", ["simplex", "coarse"])
def test_ancestral_sampling_of_structured_noise_is_refused(noise: str) -> None:
    method = DdpmConfig(widths=(8,), attention=(False,), noise=noise).build(16)
    with pytest.raises(ConfigError, match="eta=0"):
        method.sample(Rng([1]))
    assert torch.isfinite(method.sample(Rng([1]), steps=2, eta=0.0)).all()


@pytest.mark.parametrize(
    "wrong", [{"attention": (True,)}, {"widths": (8, 12), "attention": (False, False)}, {"start_times": (1000,)}]
)
def test_settings_that_do_not_fit_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        DdpmConfig(**wrong)
