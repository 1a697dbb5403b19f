"""Degradations of whole images, which a method learns to undo: linear steps one after the other, then noise.

Downsampling, blur, masks and k-space undersampling are linear and have an exact adjoint (`degrade_operators`); noise is
added to what they measure. Everything but Poisson counts is differentiable. A degraded image is on the grid of its
original: pixels of a smaller one are repeated, missing ones are 0, frequencies that were not measured are 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from pipeline.config import Config
from pipeline.corruption.degrade_masks import Border, Box, Rectangles, Strokes, Tiles
from pipeline.corruption.degrade_noise import NoiseConfig
from pipeline.corruption.degrade_operators import (
    Chain,
    FewFrequencies,
    InPlane,
    Operator,
    blur_by,
    frequencies,
    shrink_by,
    spokes,
    symmetric,
)
from pipeline.nn.rng import Rng

GOLDEN = 0.6180339887  # successive spokes are this part of half a turn apart (Winkelmann et al., IEEE TMI 2007)


class Downsample(Config):
    """Fewer pixels, antialiased."""

    kind: Literal["downsample"] = "downsample"
    factor: int = Field(4, ge=2, description="pixels along one edge that become one; must divide the image size")

    @property
    def label(self) -> str:
        """Readable name."""
        return f"downsampled {self.factor}"

    def build(self, rng: Rng, spatial: Sequence[int]) -> InPlane:
        """Return the operator; nothing is drawn. ConfigError: the factor does not divide the image."""
        return shrink_by(self.factor, spatial)


class Blur(Config):
    """Gaussian blur."""

    kind: Literal["blur"] = "blur"
    sigma_pixels: float = Field(1.0, gt=0, description="standard deviation in pixels")

    @property
    def label(self) -> str:
        """Readable name."""
        return f"blur {self.sigma_pixels:g}"

    def build(self, rng: Rng, spatial: Sequence[int]) -> InPlane:
        """Return the operator; nothing is drawn."""
        return blur_by(self.sigma_pixels, spatial)


class CartesianLines(Config):
    """K-space of which only some lines along the second axis are measured: all about the centre, others at random.

    Lines come in pairs about the centre, since images here are real; the second of a pair tells nothing new.
    """

    kind: Literal["cartesian"] = "cartesian"
    acceleration: float = Field(4.0, gt=1, le=32, description="lines of k-space / measured lines")
    centre: float = Field(0.08, gt=0, lt=1, description="share of all lines that is measured about the centre")
    falloff: float = Field(2.0, ge=0, description="how much rarer lines far from it are; 0 is uniform")

    @property
    def label(self) -> str:
        """Readable name."""
        return f"Cartesian k-space {self.acceleration:g}"

    def build(self, rng: Rng, spatial: Sequence[int]) -> FewFrequencies:
        """Return the operator, with the lines drawn."""
        *_, rows, columns = spatial
        distance = frequencies(rows).abs().to(rng.device)
        pairs = rows // 2 - 1 + rows % 2
        taken = min(pairs, max(1, round((rows / self.acceleration - 1) / 2)))
        always = min(taken, max(1, round(rows * self.centre / 2)))
        nearness = (1 - torch.arange(1, pairs + 1, device=rng.device) / (rows / 2)).clamp_min(1e-6)
        surprise = -torch.log(
            -torch.log(rng.uniform(pairs).clamp(1e-9, 1 - 1e-7))
        )  # Gumbel: draws without putting back
        rank = self.falloff * nearness.log() + surprise
        rank[:, :always] = torch.inf
        chosen = torch.zeros(len(rng), rows // 2 + 2, dtype=torch.bool, device=rng.device)
        chosen[:, 0] = True
        chosen.scatter_(1, rank.topk(taken, dim=1).indices + 1, True)
        lines = chosen[:, distance.long()]
        return FewFrequencies(symmetric(lines[:, None, :, None].expand(-1, 1, rows, columns)))


class RadialSpokes(Config):
    """K-space measured along spokes through its centre, at golden angles from a random first one."""

    kind: Literal["radial"] = "radial"
    count: int = Field(16, ge=1, le=1024, description="number of spokes")

    @property
    def label(self) -> str:
        """Readable name."""
        return f"radial k-space {self.count}"

    def build(self, rng: Rng, spatial: Sequence[int]) -> FewFrequencies:
        """Return the operator, with the first angle drawn."""
        angles = rng.uniform(1) + GOLDEN * torch.arange(self.count, device=rng.device)
        return FewFrequencies(symmetric(spokes(angles.cpu(), *spatial[-2:])).to(rng.device))


StepConfig = Annotated[
    Downsample | Blur | Strokes | Box | Border | Tiles | Rectangles | CartesianLines | RadialSpokes,
    Field(discriminator="kind"),
]


class Degraded(NamedTuple):
    """What a degradation made of images.

    Attributes:
        images: float32 [B, C, *spatial], on the grid of the originals.
        missing: float32 [B, 1, *spatial], 1 where nothing was measured.
    """

    images: Tensor
    missing: Tensor


class DegradationConfig(Config):
    """Linear steps in this order, then noise on what they measure."""

    steps: tuple[StepConfig, ...] = Field(
        (), description="downsample, blur, a mask (strokes, box, border, tiles, rectangles), cartesian, radial"
    )
    noise: NoiseConfig | None = Field(None, description="gaussian, rician or poisson; null: none")

    @model_validator(mode="after")
    def _degrades(self) -> Self:
        if not self.steps and self.noise is None:
            raise ValueError("a degradation needs `steps`, `noise`, or both")
        return self

    @property
    def label(self) -> str:
        """Readable name, as in tables and in MLflow: its parts in order."""
        steps = " then ".join(step.label for step in self.steps)
        return " with ".join(part for part in (steps, "" if self.noise is None else self.noise.label) if part)

    def operator(self, rng: Rng, spatial: Sequence[int]) -> Chain:
        """Return the linear part for images with these axes, one drawing per row.

        Raises:
            ConfigError: a factor does not divide the image, or a mask hides all of an image or nothing.
        """
        parts: list[Operator] = []
        for number, step in enumerate(self.steps):
            parts.append(step.build(rng.fork(f"step {number}"), spatial))
            spatial = (*spatial[:-2], *_plane_of(parts[-1], spatial))
        return Chain(tuple(parts))

    def degrade(self, images: Tensor, rng: Rng) -> Degraded:
        """Return degraded images; those given, float32 [B, C, *spatial] in [-1, 1], are unchanged.

        Raises:
            ConfigError: see `operator`.
        """
        with torch.autocast(images.device.type, enabled=False):
            operator = self.operator(rng, images.shape[2:])
            y = operator.forward(images.float())
            if self.noise is not None:
                y = self.noise.add(y, rng.fork("noise"))
            picture, missing = operator.show(y), operator.missing
        if missing is None:
            return Degraded(picture, torch.zeros_like(images[:, :1]))
        return Degraded(picture * (1 - missing), missing)  # noise does not fill what is missing


def _plane_of(part: Operator, spatial: Sequence[int]) -> tuple[int, int]:
    """Return the edges of the plane that an operator leaves."""
    factor = part.factor if isinstance(part, InPlane) else 1
    return spatial[-2] // factor, spatial[-1] // factor
