"""Position and outline of painted lesions: ellipses, blobs and ragged shapes in 2D and 3D."""

from __future__ import annotations

import torch
from pydantic import Field, field_validator
from torch import Tensor

from pipeline.config import Config
from pipeline.corruption.random_fields import Range, between, log_between, smooth_field
from pipeline.nn.rng import Rng


class ShapeConfig(Config):
    """Distribution of a lesion's size and outline."""

    radius: Range = Field((0.03, 0.16), description="geometric mean of the half axes / image edge, log-uniform")
    stretch: float = Field(2.0, ge=1, description="largest ratio of the longest half axis to the shortest")
    ragged: Range = Field(
        (0.1, 0.6),
        description="displacement of the outline by a smooth field, in radii; 0 is an ellipse, 1 breaks into pieces",
    )
    detail: Range = Field((0.3, 0.8), description="length of that field, in radii")
    edge: Range = Field((0.05, 0.5), description="width of the border, in radii; at least one pixel")

    @field_validator("radius")
    @classmethod
    def _positive(cls, radius: tuple[float, float]) -> tuple[float, float]:
        if radius[0] <= 0:
            raise ValueError(f"the smallest radius must be above 0, not {radius[0]}")
        return radius


def draw_shape(body: Tensor, config: ShapeConfig, rng: Rng) -> tuple[Tensor, Tensor]:
    """Draw one lesion per image, with its centre on a random pixel of the body and confined to the body.

    Args:
        body: bool [B, 1, *spatial]; a row without a body gets no lesion.

    Returns:
        coverage float32 [B, 1, *spatial] in [0, 1] (at least 0.5 within the outline), and radius [B].
    """
    radius = log_between(rng, config.radius)
    depth = 1 - _distance(body, radius, config.stretch, rng)
    ragged, detail = between(rng, config.ragged), between(rng, config.detail)
    depth += _column(ragged, depth) * smooth_field(rng, body.shape[2:], detail * radius)
    pixel = 1 / (radius * min(body.shape[2:]))
    edge = torch.maximum(between(rng, config.edge), pixel)
    coverage = (depth / _column(edge, depth) + 0.5).clamp(0, 1)
    return coverage * body, radius


def _distance(body: Tensor, radius: Tensor, stretch: float, rng: Rng) -> Tensor:
    """Return the distance of each pixel from the centre in half axes: 1 on a randomly rotated ellipse."""
    dims = body.ndim - 2
    axes = torch.linspace(-0.5, 0.5, dims, device=radius.device) * between(rng, (0.0, 1.0), 1)
    axes = radius[:, None] * stretch**axes
    turn = torch.linalg.qr(rng.normal(dims, dims)).Q
    form = torch.einsum("bij,bj,bkj->bik", turn, axes**-2, turn)
    offsets = _offsets(body, _centre(body, rng))
    squares = torch.zeros((), device=radius.device)
    for i in range(dims):
        for k in range(i, dims):
            squares = squares + _column(form[:, i, k] * (2 - (i == k)), body) * offsets[i] * offsets[k]
    return squares.clamp_min(0).sqrt()


def _centre(body: Tensor, rng: Rng) -> tuple[Tensor, ...]:
    """Return the coordinates [B] of one random pixel of each body, one tensor per axis."""
    order = body.flatten(1).cumsum(dim=1)
    target = (rng.uniform(1) * order[:, -1:]).floor() + 1
    pixel = torch.searchsorted(order, target.to(order.dtype)).clamp_max(order.shape[1] - 1)
    return torch.unravel_index(pixel[:, 0], body.shape[2:])


def _offsets(body: Tensor, centre: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the distance from the centre along each axis, relative to the image edge, shaped to broadcast over [B, 1,
    *spatial].
    """
    spatial, offsets = body.shape[2:], []
    for axis, (size, middle) in enumerate(zip(spatial, centre, strict=True)):
        line = (torch.arange(size, device=body.device) - middle[:, None]) / size
        offsets.append(line.reshape(len(body), 1, *[size if i == axis else 1 for i in range(len(spatial))]))
    return offsets


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1))
