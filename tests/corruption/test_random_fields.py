"""Smooth fields and blurs against their closed forms and against scipy."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter
from torch.testing import assert_close

from pipeline.corruption import ShapeConfig
from pipeline.corruption.random_fields import between, blur, log_between, smooth_field
from pipeline.nn.rng import Rng


@pytest.mark.parametrize("spatial", [(32, 32), (16, 24, 16)])
def test_a_field_has_mean_0_and_variance_1_at_every_pixel(spatial: tuple[int, ...]) -> None:
    field = smooth_field(Rng(range(1500)), spatial, torch.full((1500,), 0.05))
    assert field.shape == (1500, 1, *spatial)
    # 1500 draws: the standard error of a pixel's mean is 0.026, of its variance 0.037; five of them, over all pixels.
    assert field.mean(dim=0).abs().max() < 0.13
    assert (field.var(dim=0) - 1).abs().max() < 0.2


def test_the_correlation_of_two_pixels_is_that_of_a_gaussian_field() -> None:
    length = 0.08
    field = smooth_field(Rng(range(3000)), (64, 64), torch.full((3000,), length))[:, 0]
    for pixels in (3, 8, 14):
        correlation = (field[:, 20:40, 20:30] * field[:, 20:40, 20 + pixels : 30 + pixels]).mean()
        expected = math.exp(-((pixels / 64) ** 2) / (4 * length**2))
        assert abs(correlation - expected) < 0.03


def test_a_row_has_its_own_length_and_its_own_draw() -> None:
    lengths = torch.tensor([0.02, 0.2, 0.02])
    field = smooth_field(Rng([5, 6, 7]), (32, 32), lengths)
    roughness = field.diff(dim=-1).square().mean(dim=(1, 2, 3))
    assert roughness[0] > 10 * roughness[1]
    assert_close(smooth_field(Rng([7]), (32, 32), lengths[2:])[0], field[2])


def test_blur_is_scipys_gaussian_with_zeros_beyond_the_frame() -> None:
    image = Rng([1]).normal(1, 48, 48)
    once = gaussian_filter(image[0, 0].double().numpy(), 2.4, mode="constant", truncate=12)
    # scipy's weights sum to 1, blur's do not: it is divided by the blurred mask anyway.
    ones = blur(torch.ones_like(image), torch.tensor([0.05]))
    blurred = blur(image, torch.tensor([0.05])) / ones[0, 0, 24, 24]
    assert_close(blurred[0, 0].double(), torch.from_numpy(once), atol=1e-5, rtol=1e-4)


def test_ranges_are_drawn_evenly_and_by_factor() -> None:
    even, factor = between(Rng(range(4000)), (1.0, 9.0)), log_between(Rng(range(4000)), (1.0, 9.0))
    assert even.min() >= 1 and even.max() < 9 and abs(even.median() - 5) < 0.3
    assert factor.min() >= 1 and factor.max() <= 9.001 and abs(factor.median() - 3) < 0.2


@pytest.mark.parametrize("limits", [(0.2, 0.1), (-0.1, 0.1)])
def test_a_range_that_does_not_ascend_is_refused(limits: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match="ragged"):
        ShapeConfig(ragged=limits)
