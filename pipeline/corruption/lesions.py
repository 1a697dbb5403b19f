"""Synthetic lesions painted on normal images, with exact masks.

The idea is that of foreign patch interpolation (Tan et al., arXiv:2011.04197), of natural synthetic anomalies
(Schlueter et al., arXiv:2109.15222) and of the winners of MOOD 2022: the shape, texture, contrast and sign of the
painted lesions determine what a network learns to find or to remove. All of these are configuration fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.config import Config
from pipeline.corruption.canvas import Canvas
from pipeline.corruption.mass_effect import push_outwards
from pipeline.corruption.random_fields import Range, between
from pipeline.corruption.regions import RegionName, devices, find_region
from pipeline.corruption.shapes import ShapeConfig, draw_shape
from pipeline.corruption.textures import Texture, Tinted
from pipeline.nn.rng import Rng

NEIGHBOURHOOD = 5  # edge in pixels of the square over which a change is averaged to decide whether it is visible


class LesionConfig(Config):
    """Distribution of painted lesions."""

    healthy: float = Field(0.2, ge=0, lt=1, description="share of images without a lesion")
    most: int = Field(3, ge=1, le=16, description="largest number of lesions per image, drawn from 1 to this")
    region: RegionName = Field(
        "body",
        description="where lesions may lie: lungs of a radiograph, tissue of a breast, brain within the skull; where "
        "an image's is not found, its body",
    )
    devices: float | None = Field(
        None,
        gt=0,
        description="thin structures brighter by this than their surroundings, in units of [-1, 1], are never painted "
        "over (tubes, wires, text); null: they are",
    )
    shape: ShapeConfig = Field(ShapeConfig(), description="size and outline, unless a texture has its own")
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
    region = _region(images, body, config)
    painted, coverage = images, torch.zeros(body.shape, device=images.device)
    for number in range(config.most):
        rows = torch.nonzero(counts > number).flatten()
        if len(rows):
            stream = rng.fork(f"lesion {number}").rows(rows.tolist())
            others = images.roll(1, 0)[rows]
            part, covered = _one_more(painted[rows], body[rows], region[rows], others, config, stream)
            painted = painted.index_copy(0, rows, part)
            coverage = coverage.index_copy(0, rows, torch.maximum(coverage[rows], covered))
    return masked(painted, images, coverage, config.visible)


def masked(images: Tensor, clean: Tensor, coverage: Tensor, least: float) -> Painted:
    """Return images with lesions, whose mask is where at least half of the effect is, and visible (`visible`)."""
    return Painted(images, coverage, (coverage >= 0.5) & visible(images - clean, least))


def _counts(config: LesionConfig, rng: Rng) -> Tensor:
    """Return the number of lesions [B]: 0 for a share of the images, else 1 to `most`."""
    some = rng.uniform() >= config.healthy
    return rng.integers(1, config.most + 1) * some


def _region(images: Tensor, body: Tensor, config: LesionConfig) -> Tensor:
    """Return where lesions may lie: bool [B, 1, *spatial]."""
    region, _ = find_region(images, body, config.region)
    return region if config.devices is None else region & ~devices(images, config.devices)


def _one_more(
    images: Tensor, body: Tensor, region: Tensor, others: Tensor, config: LesionConfig, rng: Rng
) -> tuple[Tensor, Tensor]:
    """Paint one lesion on each image; return the images and the coverage."""
    coverage, radius = draw_shape(region, config.shape, rng)
    weights = torch.tensor([texture.weight for texture in config.textures], device=images.device)
    drawn = torch.bucketize(rng.uniform() * weights.sum(), weights.cumsum(0)[:-1], right=True)
    canvas = _outlined(Canvas(images, body, coverage, radius, others, region), drawn, config, rng)
    if config.mass_effect[1]:
        push = between(rng.fork("mass effect"), config.mass_effect)
        canvas = replace(canvas, images=push_outwards(images, canvas.coverage, canvas.radius, push))
    contents = canvas.images.clone()
    for texture, rows in _by_texture(drawn, config):
        contents[rows] = texture.content(_rows(canvas, rows), rng.fork(texture.kind).rows(rows.tolist()))
    # A displaced image is unchanged at its border already, so blending it again does no harm.
    painted = canvas.images.lerp(contents, canvas.coverage.expand_as(images)).clamp(-1, 1)
    return torch.where(canvas.coverage > 0, painted, canvas.images), canvas.coverage


def _outlined(canvas: Canvas, drawn: Tensor, config: LesionConfig, rng: Rng) -> Canvas:
    """Return the canvas with the outlines that the drawn textures want, and with twins on the other side."""
    coverage, radius = canvas.coverage.clone(), canvas.radius.clone()
    region = canvas.body if canvas.region is None else canvas.region
    for texture, rows in _by_texture(drawn, config):
        if texture.shape is not None:
            stream = rng.fork(f"{texture.kind} shape").rows(rows.tolist())
            coverage[rows], radius[rows] = draw_shape(region[rows], texture.shape, stream)
    if config.both_sides:
        twin = rng.fork("both sides").uniform(*[1] * (coverage.ndim - 1)) < config.both_sides
        coverage = torch.where(twin, torch.maximum(coverage, coverage.flip(-1) * region), coverage)
    canvas = replace(canvas, coverage=coverage, radius=radius, core=coverage)
    covered = coverage.clone()
    for texture, rows in _by_texture(drawn, config):
        covered[rows] = texture.cover(_rows(canvas, rows), rng.fork(f"{texture.kind} cover").rows(rows.tolist()))
    return replace(canvas, coverage=covered)


def _by_texture(drawn: Tensor, config: LesionConfig) -> Iterator[tuple[Texture, Tensor]]:
    """Yield each texture that was drawn, and its rows."""
    for kind, texture in enumerate(config.textures):
        rows = torch.nonzero(drawn == kind).flatten()
        if len(rows):
            yield texture, rows


def _rows(canvas: Canvas, rows: Tensor) -> Canvas:
    """Return some rows of a canvas."""
    x = canvas
    others, (region, core) = x.others[rows], (None if one is None else one[rows] for one in (x.region, x.core))
    return Canvas(x.images[rows], x.body[rows], x.coverage[rows], x.radius[rows], others, region, core)


def visible(change: Tensor, least: float) -> Tensor:
    """Return the mask of pixels whose change, averaged over channels and neighbourhood, is at least `least`: bool [B,
    1, *spatial].
    """
    pool = F.avg_pool2d if change.ndim == 4 else F.avg_pool3d
    amount = change.abs().mean(dim=1, keepdim=True)
    return pool(amount, NEIGHBOURHOOD, 1, NEIGHBOURHOOD // 2, count_include_pad=False) >= least
