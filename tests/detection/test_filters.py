"""Filters against scipy's, which share no code with the matrix product and the shifted masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from pipeline.detection.filters import erode, gaussian_blur


def noise(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(7).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("shape", [(3, 2, 17, 24), (2, 1, 9, 12, 15)])
@pytest.mark.parametrize("fraction", [1 / 64, 3 / 64, 0.3])
def test_blur_is_scipy_gaussian_with_nearest_border(shape: tuple[int, ...], fraction: float) -> None:
    x = noise(*shape)
    sigma = [0, 0, *[fraction * n for n in shape[2:]]]
    expected = ndimage.gaussian_filter(x.double().numpy(), sigma, mode="nearest", truncate=3.5)
    torch.testing.assert_close(gaussian_blur(x, fraction).double(), torch.from_numpy(expected), atol=2e-6, rtol=1e-5)


def test_blur_keeps_a_constant() -> None:
    torch.testing.assert_close(gaussian_blur(torch.full((1, 1, 20, 20), 0.7), 0.2), torch.full((1, 1, 20, 20), 0.7))


@pytest.mark.parametrize("shape", [(1, 1, 12, 12), (1, 1, 8, 8, 8)])
@pytest.mark.parametrize("pixels", [0, 1, 2])
def test_erosion_is_scipys_with_the_frame_counted_as_body(shape: tuple[int, ...], pixels: int) -> None:
    body = noise(*shape) > -1.5
    square = np.ones((2 * pixels + 1,) * (len(shape) - 2))
    expected = ndimage.binary_erosion(body[0, 0].numpy(), square, border_value=1) if pixels else body[0, 0].numpy()
    assert np.array_equal(erode(body, pixels)[0, 0].numpy(), expected)


def test_a_body_that_fills_the_frame_stays_whole() -> None:
    assert erode(torch.ones(1, 1, 8, 8, dtype=torch.bool), 3).all()
