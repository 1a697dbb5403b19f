"""Textures of findings in ultrasound: hypoechoic masses, with what lies behind them."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.corruption.canvas import Canvas, TextureConfig
from pipeline.corruption.random_fields import Range, between, blur
from pipeline.corruption.shapes import ShapeConfig
from pipeline.errors import ConfigError
from pipeline.nn.rng import Rng

BEHIND = 0.45  # coverage right behind a mass: below 0.5, so that the mask is the mass alone


class Hypoechoic(TextureConfig):
    """Hypoechoic mass: darker than its surroundings with its own, finer speckle; behind it a shadow or enhancement.

    Speckle stays, since brightness is the logarithm of the echo, but a scanner shows weak echoes with less contrast.
    """

    kind: Literal["hypoechoic"] = "hypoechoic"
    shape: ShapeConfig | None = Field(
        ShapeConfig(radius=(0.04, 0.16), stretch=2.0, ragged=(0.1, 0.6), detail=(0.25, 0.6), edge=(0.05, 0.4)),
        description="size and outline of these lesions; null: those of all lesions",
    )
    contrast: Range = Field((0.25, 0.8), description="share of the brightness (above -1) that is lost, at most 1")
    speckle: Range = Field((0.5, 1.0), description="share of the speckle that remains")
    grain: float = Field(0.02, gt=0, le=1, description="length below which variation is speckle / image edge")
    shadow: float = Field(0.5, ge=0, le=1, description="share of masses with a shadow; the others have enhancement")
    behind: Range = Field((0.0, 0.6), description="share of the brightness that is lost or gained right behind it")
    reach: Range = Field((1.0, 4.0), description="distance over which it fades to a third, in radii")

    def cover(self, canvas: Canvas, rng: Rng) -> Tensor:
        """Return the coverage [B, 1, H, W] of the mass and, below one half, of what lies below it in the picture."""
        core = canvas.coverage
        if core.ndim != 4:
            raise ConfigError(
                "A hypoechoic mass has a shadow behind it in the picture, so it is painted on slices and not in "
                "volumes. Remove the texture hypoechoic, or train on slices."
            )
        passed = core.cummax(dim=2).values
        pixels = (passed > 0.5).cumsum(dim=2) / core.shape[2]
        reach = (between(rng, self.reach) * canvas.radius).reshape(-1, 1, 1, 1)
        trail = BEHIND * passed * (-pixels / reach.clamp_min(1e-3)).exp() * canvas.body
        soft, width = torch.ones_like(trail), 0.15 * canvas.radius
        trail = blur(trail, width) / blur(soft, width).clamp_min(1e-6) * canvas.body
        below = core.amax(dim=3, keepdim=True).cummax(dim=2).values > 0.5
        return torch.maximum(core, trail * below)

    def content(self, canvas: Canvas, rng: Rng) -> Tensor:
        """Return [B, C, H, W]: weaker echoes within the mass, and weaker or stronger ones behind it."""
        x, one = canvas.images, [1] * (canvas.images.ndim - 1)
        core = canvas.coverage if canvas.core is None else canvas.core
        inside, length = canvas.body.float(), torch.full((len(x),), self.grain, device=x.device)
        mean = blur(x * inside, length) / blur(inside, length).clamp_min(1e-3)
        left = 1 - between(rng, self.contrast, *one)
        mass = left * (mean + 1) - 1 + between(rng, self.speckle, *one) * left.sqrt() * (x - mean)
        sign = torch.where(rng.uniform(*one) < self.shadow, -1.0, 1.0)
        trail = x + sign * between(rng, self.behind, *one) / BEHIND * (mean + 1)
        part = (core / canvas.coverage.clamp_min(1e-6)).clamp(0, 1)
        return trail.lerp(mass, part.expand_as(x))
