"""Intensity jitter: each number does what it says, and the defaults nothing."""

from __future__ import annotations

import math

import pytest
from torch import Tensor
from torch.testing import assert_close

from pipeline.corruption import IntensityConfig, jitter
from pipeline.nn.rng import Rng


@pytest.fixture
def images() -> Tensor:
    return Rng(range(200)).uniform(1, 64, 64, low=-0.9, high=0.5)


def test_the_default_changes_nothing(images: Tensor, block: Tensor) -> None:
    values = jitter(images, block, IntensityConfig(), Rng(range(200)))
    assert_close(values, images)


def test_gamma_is_an_exponent_on_0_to_1_and_keeps_both_ends(images: Tensor, whole: Tensor) -> None:
    images[..., 0, 0], images[..., 0, 1] = -1.0, 1.0
    values = jitter(images, whole, IntensityConfig(gamma=2.0), Rng(range(200)))
    assert_close(values[..., 0, 0], images[..., 0, 0])
    assert_close(values[..., 0, 1], images[..., 0, 1])
    exponents = ((values[..., 3:, 3:] + 1) / 2).log() / ((images[..., 3:, 3:] + 1) / 2).log()
    assert exponents.flatten(1).std(dim=1).max() < 1e-3  # one per image
    logs = exponents[:, 0, 0, 0].log() / math.log(2)
    assert logs.abs().max() <= 1.001 and abs(logs.mean()) < 0.15 and abs(logs.std() - 3**-0.5) < 0.08


def test_gain_is_a_factor_and_noise_stays_within_the_body(images: Tensor, block: Tensor) -> None:
    values = jitter(images, block, IntensityConfig(gain=0.2), Rng(range(200)))
    factors = ((values + 1) / (images + 1)).flatten(1)
    assert_close(factors, factors[:, :1].expand_as(factors), atol=1e-4, rtol=1e-4)
    assert factors.min() >= 0.8 - 1e-4 and factors.max() <= 1.2 + 1e-4 and factors.std() > 0.08
    noisy = jitter(images, block, IntensityConfig(noise=0.1), Rng(range(200)))
    assert_close(noisy.masked_select(~block), images.masked_select(~block))
    stds = (noisy - images).masked_select(block).reshape(200, -1).std(dim=1)
    assert stds.max() < 0.12 and abs(stds.mean() - 0.05) < 0.01


def test_a_bias_field_is_smooth_and_multiplies(images: Tensor, whole: Tensor) -> None:
    values = jitter(images, whole, IntensityConfig(bias=0.1), Rng(range(200)))
    logs = ((values + 1) / (images + 1)).log()
    assert 0.02 < logs.std() < 0.1
    assert logs.diff(dim=-1).std() < 0.2 * logs.std()


def test_a_row_depends_on_itself_alone_and_stays_in_range(images: Tensor, whole: Tensor) -> None:
    config = IntensityConfig(gamma=1.5, gain=0.3, bias=0.2, noise=0.1)
    values = jitter(images, whole, config, Rng(range(200)))
    assert values.min() >= -1 and values.max() <= 1
    few = jitter(images[5:7], whole[5:7], config, Rng([5, 6]))
    assert_close(few, values[5:7])


def test_blur_and_compression_remove_what_noise_adds(images: Tensor, whole: Tensor) -> None:
    detail = images.diff(dim=-1).flatten(1).std(dim=1)
    for config in (IntensityConfig(blur=0.02), IntensityConfig(quality=5)):
        values = jitter(images, whole, config, Rng(range(200)))
        ratio = values.diff(dim=-1).flatten(1).std(dim=1) / detail
        assert ratio.min() < 0.7 and 0.9 < ratio.max() < 1.2
        assert (values.mean(dim=(1, 2, 3)) - images.mean(dim=(1, 2, 3))).abs().max() < 0.05
