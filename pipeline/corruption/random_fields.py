"""Smooth random fields and blurs whose scale differs from row to row, as products of one matrix per axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import AfterValidator
from torch import Tensor

from pipeline.nn.rng import Rng

KNOTS = 32  # along one edge: the finest length is half their distance, 1/64 of the edge


def _ascending(values: tuple[float, float]) -> tuple[float, float]:
    low, high = values
    if not 0 <= low <= high:
        raise ValueError(f"the range {low} to {high} must be ascending and start at 0 or above")
    return values


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]


def between(rng: Rng, limits: Range, *shape: int) -> Tensor:
    """Draw uniformly from a range: float32 [B, *shape]."""
    return rng.uniform(*shape, low=limits[0], high=limits[1])


def log_between(rng: Rng, limits: Range, *shape: int) -> Tensor:
    """Draw log-uniformly from a range: float32 [B, *shape]; both ends must be above 0."""
    low, high = torch.tensor(limits).log().tolist()
    return rng.uniform(*shape, low=low, high=high).exp()


def smooth_field(rng: Rng, spatial: Sequence[int], length: Tensor) -> Tensor:
    """Return Gaussian random fields [B, 1, *spatial] with mean 0 and variance 1 at every pixel.

    White noise on a grid of knots, summed under a Gaussian of standard deviation `length`: the correlation of two
    pixels at distance d is exp(-d^2 / (4 length^2)).

    Args:
        rng: one stream per row.
        spatial: pixels along each axis.
        length: [B], a fraction of the edge; values below half the knot spacing are raised to it.
    """
    field = rng.normal(1, *[KNOTS] * len(spatial))
    finest = length.clamp_min(0.5 / KNOTS)
    for size in spatial:
        # Each turn upsamples the first spatial axis and moves it to the end, so the order is restored after the loop.
        field = torch.einsum("bcx...,bpx->bc...p", field, _weights(size, KNOTS, finest, unit_variance=True))
    return field


def blur(images: Tensor, length: Tensor) -> Tensor:
    """Blur each image [B, C, *spatial] with a Gaussian of its own standard deviation `length` [B] (fraction of the
    edge); pixels beyond the frame count as zeros, so divide by the blurred mask of the valid pixels."""
    for size in images.shape[2:]:
        images = torch.einsum("bcx...,bpx->bc...p", images, _weights(size, size, length, unit_variance=False))
    return images


def _weights(size: int, knots: int, length: Tensor, unit_variance: bool) -> Tensor:
    """Return [B, size, knots]: Gaussian weights of the knots at each pixel, scaled so that white knots give variance 1,
    or a plain Gaussian."""
    device = length.device
    pixels = (torch.arange(size, device=device) + 0.5) / size
    places = (torch.arange(knots, device=device) + 0.5) / knots
    distance = (pixels[:, None] - places) / length.clamp_min(1e-6)[:, None, None]
    weights = torch.exp(-0.5 * distance.square())
    return weights / weights.square().sum(dim=2, keepdim=True).sqrt() if unit_variance else weights
