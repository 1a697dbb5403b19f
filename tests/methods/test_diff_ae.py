"""`diff_ae`: the exact conditional denoiser makes transport and round trip known; the encoder learns through it."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.diffusion.sampling import denoise, invert, time_grid
from pipeline.errors import ConfigError
from pipeline.methods.diff_ae import DiffAeConfig, DiffusionAutoencoder
from pipeline.nn.rng import Rng
from pipeline.types import Batch

STD = 0.1
SMALL = {"widths": (8, 8), "latent": 1, "denoiser": {"patch": 1, "widths": (8,), "attention": (False,)}}


class Mean(nn.Module):
    """z is the image's mean."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).mean(dim=1, keepdim=True)


class Exact(nn.Module):
    """E[eps | x_t, z] for independent pixels N(z, STD^2)."""

    def __init__(self, alpha_bar: Tensor) -> None:
        super().__init__()
        self.alpha_bar = alpha_bar

    def forward(self, x_t: Tensor, t: Tensor, z: Tensor) -> Tensor:
        a = self.alpha_bar[t].reshape(-1, 1, 1, 1)
        return (1 - a).sqrt() * (x_t - a.sqrt() * z[..., None, None]) / (a * STD**2 + 1 - a)


def exact(**settings: object) -> DiffusionAutoencoder:
    method = DiffAeConfig(**{**SMALL, **settings}).build(16)
    method.network, method.encoder = Exact(method.process.alpha_bar), Mean()
    return method


def images(count: int = 6) -> Tensor:
    levels = torch.linspace(-0.4, 0.4, count).reshape(-1, 1, 1, 1)
    return levels + STD * Rng(range(count)).normal(1, 16, 16)


def test_the_inverted_code_brings_the_image_back_and_better_with_more_steps() -> None:
    x = images()
    errors = [(exact(steps=n).reconstruct(x, Rng(range(6))) - x).abs().max().item() for n in (10, 50, 250)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2] and errors[2] < 0.03
    first, second = (exact().reconstruct(x, Rng([k] * 6)) for k in (1, 2))
    assert torch.equal(first, second)  # nothing is drawn


def test_the_stochastic_code_carries_over_to_another_semantic_code() -> None:
    # (z, x_T) -> x_T is (x - z) / s; decoded with z' it is z' + (x - z): the texture on another subject.
    method, x, grid = exact(), images(), time_grid(999, 500)
    z = Mean()(x)
    a = method.process.alpha_bar
    x_t = invert(method.denoiser(z), a, x, grid)
    assert_close(x_t, (x - z[..., None, None]) / STD, rtol=0, atol=0.15)
    other = denoise(method.denoiser(z + 0.3), a, x_t, grid, Rng(range(6)))
    assert_close(other, x + 0.3, rtol=0, atol=0.02)


def test_a_drawn_code_keeps_the_subject_and_not_the_texture() -> None:
    # At T nothing shows through: x_hat is a fresh N(z, s^2), of which the image's own mean is kept.
    x = images()
    x_hat = exact(stochastic="drawn", steps=500).reconstruct(x, Rng(range(100, 106)))
    assert_close(Mean()(x_hat), Mean()(x), rtol=0, atol=5 * STD / 16 + 0.01)
    texture, fresh = (i - Mean()(i)[..., None, None] for i in (x, x_hat))
    assert abs((texture * fresh).mean() / STD**2) < 0.15
    assert abs(fresh.std() / STD - 1) < 0.1


def test_the_encoder_learns_through_the_denoiser() -> None:
    method = DiffAeConfig(**{**SMALL, "latent": 4}).build(16)
    nn.init.normal_(method.network.network.out[2].conv.weight)  # zero at first, and in the way
    x = images()
    terms = method.loss(Batch(x, x > 9, tuple("abcdef")), "train", Rng(range(6)))
    gradients = torch.autograd.grad(terms["total"], list(method.encoder.parameters()), allow_unused=True)
    assert all(gradient is not None for gradient in gradients)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_the_loss_is_l_simple_of_a_denoiser_given_the_clean_image() -> None:
    method, x = exact(), images()
    x_t, t, eps = method.process.lesson(x, Rng(range(6)))
    expected = (method.network(x_t, t, Mean()(x)) - eps).square().mean()
    assert_close(method.loss(Batch(x, x > 9, tuple("abcdef")), "train", Rng(range(6)))["total"], expected)
    assert (method.network(x_t, t, Mean()(x_t)) - eps).square().mean() > 1.03 * expected


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"\b20\b.*\b5\b.*\b6\b"):
        DiffAeConfig(start_times=(5,), steps=20)
    with pytest.raises(ConfigError, match=r"diff_ae.*\b24\b"):
        DiffAeConfig().build(24)
