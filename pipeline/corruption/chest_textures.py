"""Textures of findings on chest radiographs: soft opacities, nodules, consolidations and effusions.

A radiograph adds up what a beam passes, so a finding brightens lung and leaves the ribs across it visible, the less so
the denser it is. Brightening is towards the image's own soft tissue: x + density (tissue - x) where that is brighter.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.corruption.canvas import Canvas, TextureConfig, mean_under
from pipeline.corruption.random_fields import Range, between, log_between, smooth_field
from pipeline.corruption.shapes import ShapeConfig
from pipeline.errors import ConfigError
from pipeline.nn.rng import Rng

TISSUE = 0.8  # quantile of the body's brightness: mediastinum, liver and shoulders are about as bright
MENISCUS = 2.0  # exponent of the rise of an effusion towards the chest wall


class _Uneven(TextureConfig):
    """Tissue brightened by an uneven density; each finding has its own ranges."""

    density: Range
    uneven: Range
    grain: Range

    def content(self, canvas: Canvas, rng: Rng) -> Tensor:
        """Return [B, C, *spatial]: tissue, brightened by an uneven density."""
        return brightened(canvas.images, self.draw_density(canvas.images, rng), canvas.body)

    def draw_density(self, x: Tensor, rng: Rng) -> Tensor:
        """Return a density [B, 1, *spatial] for images x, varying around one value of each."""
        field = smooth_field(rng, x.shape[2:], log_between(rng, self.grain))
        one = [1] * (x.ndim - 1)
        return between(rng, self.density, *one) * (1 + between(rng, self.uneven, *one) * field)


class Opacity(_Uneven):
    """Soft opacity: a haze of uneven density with a wide border, through which ribs and vessels are seen."""

    kind: Literal["opacity"] = "opacity"
    shape: ShapeConfig | None = Field(
        ShapeConfig(radius=(0.06, 0.2), stretch=1.8, ragged=(0.2, 0.6), detail=(0.4, 0.9), edge=(0.6, 1.2)),
        description="size and outline of these lesions; null: those of all lesions",
    )
    density: Range = Field((0.2, 0.7), description="share of the way to soft tissue, at most 1")
    uneven: Range = Field((0.0, 0.4), description="standard deviation of the density / density")
    grain: Range = Field((0.04, 0.12), description="length of that variation / image edge, log-uniform")


class Nodule(TextureConfig):
    """Nodule: a small round density with a soft edge."""

    kind: Literal["nodule"] = "nodule"
    shape: ShapeConfig | None = Field(
        ShapeConfig(radius=(0.018, 0.06), stretch=1.3, ragged=(0.0, 0.15), detail=(0.5, 0.9), edge=(0.5, 1.1)),
        description="size and outline of these lesions; null: those of all lesions",
    )
    density: Range = Field((0.3, 0.9), description="share of the way to soft tissue in its middle, at most 1")

    def content(self, canvas: Canvas, rng: Rng) -> Tensor:
        """Return [B, C, *spatial]: tissue, brightened most in the middle, where the beam passes most of the ball."""
        x, one = canvas.images, [1] * (canvas.images.ndim - 1)
        return brightened(x, between(rng, self.density, *one) * (0.5 + 0.5 * canvas.coverage), canvas.body)


class Consolidation(_Uneven):
    """Consolidation: lung filled with fluid, patchy and dense, with dark air-filled bronchi in it."""

    kind: Literal["consolidation"] = "consolidation"
    shape: ShapeConfig | None = Field(
        ShapeConfig(radius=(0.06, 0.16), stretch=1.8, ragged=(0.3, 0.8), detail=(0.3, 0.6), edge=(0.2, 0.6)),
        description="size and outline of these lesions; null: those of all lesions",
    )
    density: Range = Field((0.5, 0.95), description="share of the way to soft tissue, at most 1")
    uneven: Range = Field((0.1, 0.3), description="standard deviation of the density / density")
    grain: Range = Field((0.015, 0.04), description="length of that variation / image edge, log-uniform")
    wipe: Range = Field((0.2, 0.7), description="share of the tissue's detail that is replaced by its local mean")
    bronchi: Range = Field((0.0, 0.5), description="share of the density that is missing along the bronchi")
    calibre: Range = Field((0.08, 0.2), description="width of the bronchi, in standard deviations of their field")

    def content(self, canvas: Canvas, rng: Rng) -> Tensor:
        """Return [B, C, *spatial]: tissue without part of its detail, brightened except along branching lines."""
        x, one = canvas.images, [1] * (canvas.images.ndim - 1)
        tissue = x + between(rng, self.wipe, *one) * (mean_under(x, canvas.coverage) - x)
        density = self.draw_density(x, rng)
        # The zero lines of a smooth field meet and part like branches.
        field = smooth_field(rng, x.shape[2:], 0.35 * canvas.radius.clamp_min(0.06))
        lines = torch.exp(-0.5 * (field / between(rng, self.calibre, *one).clamp_min(1e-3)).square())
        return brightened(tissue, density * (1 - between(rng, self.bronchi, *one) * lines), canvas.body)


class Effusion(_Uneven):
    """Pleural effusion: fluid that fills the base of one lung up to a level that rises towards the chest wall."""

    kind: Literal["effusion"] = "effusion"
    level: Range = Field((0.1, 0.45), description="height of the fluid in the middle / height of the lung")
    rise: Range = Field((0.05, 0.25), description="further height at the chest wall (meniscus) / height of the lung")
    blur: Range = Field((0.015, 0.04), description="width of the upper border / image edge")
    density: Range = Field((0.75, 1.0), description="share of the way to soft tissue, at most 1")
    uneven: Range = Field((0.0, 0.1), description="standard deviation of the density / density")
    grain: Range = Field((0.05, 0.15), description="length of that variation / image edge, log-uniform")

    def cover(self, canvas: Canvas, rng: Rng) -> Tensor:
        """Return the coverage [B, 1, H, W] of the fluid within one side of the region; rows run downwards."""
        region = canvas.body if canvas.region is None else canvas.region
        if region.ndim != 4:
            raise ConfigError(
                "An effusion has a level in the picture, so it is painted on slices and not in volumes. Remove the "
                "texture effusion, or train on slices."
            )
        side, outwards = _one_side(region, rng)
        rows = torch.linspace(0, 1, region.shape[2], device=region.device)[:, None].expand(region.shape[2:])
        top = torch.where(side, rows, 1.0).amin(dim=(1, 2, 3), keepdim=True)
        bottom = torch.where(side, rows, 0.0).amax(dim=(1, 2, 3), keepdim=True)
        one = [1, 1, 1]
        filled = between(rng, self.level, *one) + between(rng, self.rise, *one) * outwards**MENISCUS
        depth = rows - (bottom - filled * (bottom - top))
        level = (depth / between(rng, self.blur, *one).clamp_min(1e-3) + 0.5).clamp(0, 1)
        return level * side * F.avg_pool2d(side.float(), 5, 1, 2)


def _one_side(region: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
    """Return the left or right part of each region, bool [B, 1, H, W], and how far out each column is, 0 .. 1."""
    columns = torch.linspace(0, 1, region.shape[3], device=region.device).expand(region.shape)
    middle = (columns * region).sum(dim=(2, 3), keepdim=True) / region.sum(dim=(2, 3), keepdim=True).clamp_min(1)
    right = rng.uniform(1, 1, 1) < 0.5
    side = region & torch.where(right, columns >= middle, columns < middle)
    distance = torch.where(side, (columns - middle).abs(), torch.zeros_like(columns))
    return side, distance / distance.amax(dim=(2, 3), keepdim=True).clamp_min(1e-6)


def brightened(x: Tensor, density: Tensor, body: Tensor) -> Tensor:
    """Return x moved by a share `density` of the way to the brightness of soft tissue, where it is darker than that."""
    inside = torch.where(body, x.mean(dim=1, keepdim=True), torch.nan).flatten(1)
    tissue = inside.nanquantile(TISSUE, dim=1).nan_to_num(1.0).reshape(-1, *[1] * (x.ndim - 1))
    return x + density.clamp(0, 1) * (tissue - x).clamp_min(0)
