"""Synthetic lesions painted on normal images, with exact masks.

The idea is that of foreign patch interpolation (Tan et al., arXiv:2011.04197), of natural synthetic anomalies
(Schlueter et al., arXiv:2109.15222) and of the winners of MOOD 2022: the shape, texture, contrast and sign of the
painted lesions determine what a network learns to find or to remove. All of these are configuration fields.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.config import Config
from pipeline.corruption.mass_effect import push_outwards
from pipeline.corruption.random_fields import Range, between
from pipeline.corruption.shapes import ShapeConfig, draw_shape
from pipeline.corruption.textures import Canvas, Texture, Tinted
from pipeline.nn.rng import Rng

NEIGHBOURHOOD = 5  # edge in pixels of the square over which a change is averaged to decide whether it is visible


class LesionConfig(Config):
    """Distribution of painted lesions."""

    healthy: float = Field(0.2, ge=0, lt=1, description="share of images without a lesion")
    most: int = Field(3, ge=1, le=16, description="largest number of lesions per image, drawn from 1 to this")
    shape: ShapeConfig = Field(ShapeConfig(), description="size and outline")
    textures: tuple[Texture, ...] = Field(
        (Tinted(),), min_length=1, description="textures of the lesions, drawn by weight"
    )
    both_sides: float = Field(
        0.0, ge=0, le=1, description="share of lesions that have a twin on the other side, mirrored along the last axis"
    )
    mass_effect: Range = Field(
        (0.0, 0.0), description="how far the tissue at the lesion's border is pushed outwards, in radii of the lesion"
    )
    visible: float = Field(
        0.02, ge=0, description="pixels that change by less than this (mean over 5 x 5 pixels) are not in the mask"
    )


@dataclass(frozen=True, slots=True)
class Painted:
    """Images with lesions.

    Attributes:
        images: float32 [B, C, *spatial] in [-1, 1]; equal to the original wherever coverage is 0, unless there is a
            mass effect, which also moves the tissue around a lesion.
        coverage: float32 [B, 1, *spatial] in [0, 1]: share of the lesion's effect at a pixel; 0 outside the body.
        mask: bool [B, 1, *spatial]: at least half of the effect, and visible.
    """

    images: Tensor
    coverage: Tensor
    mask: Tensor


def paint(images: Tensor, body: Tensor, config: LesionConfig, rng: Rng) -> Painted:
    """Paint lesions on normal images, within their bodies.

    Args:
        images: float32 [B, C, *spatial] in [-1, 1].
        body: bool [B, 1, *spatial].
        rng: one stream per row; its position is unchanged. A row depends on itself alone, except with `Foreign`.
    """
    with torch.autocast(images.device.type, enabled=False):  # bf16 would round all pixels under a lesion
        return _paint(images, body, config, rng)


def fade(painted: Painted, clean: Tensor, share: Tensor, config: LesionConfig) -> Painted:
    """Return the lesions at a share of their strength: x + share (painted - x), and what is still visible of them.

    Args:
        painted: of `paint`.
        clean: float32 [B, C, *spatial], the images before painting.
        share: in [0, 1], broadcast against images.
        config: of the same `paint`.
    """
    images = torch.lerp(clean, painted.images, share.expand_as(clean))
    mask = painted.mask & visible(images - clean, config.visible)
    return Painted(images, painted.coverage * share, mask)


def _paint(images: Tensor, body: Tensor, config: LesionConfig, rng: Rng) -> Painted:
    counts = _counts(config, rng.fork("lesions"))
    painted, coverage = images, torch.zeros(body.shape, device=images.device)
    for number in range(config.most):
        rows = torch.nonzero(counts > number).flatten()
        if len(rows):
            stream = rng.fork(f"lesion {number}").rows(rows.tolist())
            part, covered = _one_more(painted[rows], body[rows], images.roll(1, 0)[rows], config, stream)
            painted = painted.index_copy(0, rows, part)
            coverage = coverage.index_copy(0, rows, torch.maximum(coverage[rows], covered))
    return Painted(painted, coverage, (coverage >= 0.5) & visible(painted - images, config.visible))


def _counts(config: LesionConfig, rng: Rng) -> Tensor:
    """Return the number of lesions [B]: 0 for a share of the images, else 1 to `most`."""
    some = rng.uniform() >= config.healthy
    return rng.integers(1, config.most + 1) * some


def _one_more(images: Tensor, body: Tensor, others: Tensor, config: LesionConfig, rng: Rng) -> tuple[Tensor, Tensor]:
    """Paint one lesion on each image; return the images and the coverage."""
    coverage, radius = draw_shape(body, config.shape, rng)
    if config.both_sides:
        twin = rng.fork("both sides").uniform(*[1] * (body.ndim - 1)) < config.both_sides
        coverage = torch.where(twin, torch.maximum(coverage, coverage.flip(-1) * body), coverage)
    if config.mass_effect[1]:
        images = push_outwards(images, coverage, radius, between(rng.fork("mass effect"), config.mass_effect))
    contents = images.clone()
    weights = torch.tensor([texture.weight for texture in config.textures], device=images.device)
    drawn = torch.bucketize(rng.uniform() * weights.sum(), weights.cumsum(0)[:-1], right=True)
    for kind, texture in enumerate(config.textures):
        rows = torch.nonzero(drawn == kind).flatten()
        if len(rows):
            canvas = Canvas(images[rows], body[rows], coverage[rows], radius[rows], others[rows])
            contents[rows] = texture.content(canvas, rng.fork(texture.kind).rows(rows.tolist()))
    # A displaced image is unchanged at its border already, so blending it again does no harm.
    painted = images.lerp(contents, coverage.expand_as(images)).clamp(-1, 1)
    return torch.where(coverage > 0, painted, images), coverage


def visible(change: Tensor, least: float) -> Tensor:
    """Return the mask of pixels whose change, averaged over channels and neighbourhood, is at least `least`: bool [B,
    1, *spatial].
    """
    pool = F.avg_pool2d if change.ndim == 4 else F.avg_pool3d
    amount = change.abs().mean(dim=1, keepdim=True)
    return pool(amount, NEIGHBOURHOOD, 1, NEIGHBOURHOOD // 2, count_include_pad=False) >= least
