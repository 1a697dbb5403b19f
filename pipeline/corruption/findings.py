"""Findings of an earlier model in unlabelled scans, pasted on normal images as lesions that are real.

A painter can only draw the lesions that somebody thought of. Among unlabelled scans there are real ones, and a trained
detector finds some of them: connected regions of its map that no normal scan would have. `harvest` cuts them out, and
`paste` blends them into normal images, moved, turned, scaled and changed in brightness. No label is read. What the
earlier model is blind to is not harvested, so pasting adds to painting and does not replace it.

The idea is cut and paste (Li et al., CutPaste, arXiv:2104.04015), with a detector in place of a random rectangle, and
self-training on a model's own confident findings (Yoon et al., arXiv:2106.06115, uses unlabelled data in such rounds).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from scipy import ndimage
from torch import Tensor

from pipeline.config import Config
from pipeline.corruption.displace import pixel_places
from pipeline.corruption.pose import PoseConfig, pose_matrices
from pipeline.corruption.random_fields import Range, between
from pipeline.nn.rng import Rng

SOFT = 1.0  # standard deviation of an outline's border in pixels
HIGH = 0.95  # quantile of a region's values that counts as its high values


class PastingConfig(Config):
    """How findings are pasted."""

    share: float = Field(
        0.5, gt=0, le=1, description="share of the images that get a finding instead of painted lesions"
    )
    rotate_degrees: float = Field(35.0, ge=0, le=180, description="largest rotation")
    scale: float = Field(0.4, ge=0, lt=1, description="size factor, drawn within 1 +- scale")
    shift: float = Field(
        0.08, ge=0, lt=0.5, description="largest distance from where it was found, along each axis / edge"
    )
    gain: float = Field(0.2, ge=0, lt=1, description="its intensities, counted from -1, are scaled within 1 +- gain")
    strength: Range = Field((0.6, 1.0), description="share of the finding in the middle of its outline")


class HarvestConfig(Config):
    """Which regions of a map are findings; areas are shares of the image."""

    seeds: float = Field(0.0005, gt=0, lt=1, description="share of normal pixels above the threshold of a seed")
    regions: float = Field(0.005, gt=0, lt=1, description="share of normal pixels above the threshold of a region")
    seed_area: float = Field(0.0006, gt=0, lt=1, description="least area of the seeds in a region")
    area: float = Field(0.0018, gt=0, lt=1, description="least area of a region")
    outline: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="height of a finding's outline, from 0, the threshold of a region, to 1, its own high values",
    )
    most: int = Field(1000, ge=1, description="findings to keep, those with the most seeds first")

    @model_validator(mode="after")
    def _seeds_are_rarer(self) -> Self:
        if self.seeds > self.regions:
            raise ValueError(f"seeds ({self.seeds}) must be at most regions ({self.regions}): a seed is the rarer one")
        return self


@dataclass(frozen=True, slots=True)
class Findings:
    """Findings, each with the image that it is in.

    Attributes:
        images: float32 [N, C, *spatial] in [-1, 1].
        outlines: float32 [N, 1, *spatial] in [0, 1], with a soft border.
    """

    images: Tensor
    outlines: Tensor

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def join(cls, parts: list[Self]) -> Self:
        """Return the findings of several lots as one."""
        return cls(torch.cat([part.images for part in parts]), torch.cat([part.outlines for part in parts]))

    def row(self, index: int) -> Tensor:
        """Return one finding as a row of `Batch.findings`: [C + 1, *spatial], the outline last."""
        return torch.cat([self.images[index], self.outlines[index]])


def harvest(surprise: Tensor, thresholds: tuple[float, float], config: HarvestConfig) -> Iterator[tuple[float, Tensor]]:
    """Yield the findings of one image: the area of the seeds / image, and the outline [1, *spatial].

    A finding is a connected region above the lower threshold that holds enough pixels above the higher one. Maps
    are blurred, so that a strong finding is above the threshold beyond its border; `config.outline` cuts it higher up.

    Args:
        surprise: the detector's map, [1, *spatial], with -infinity where it does not count.
        thresholds: of a seed and of a region.
        config: least areas.
    """
    grid, total = surprise[0].numpy(), prod(surprise.shape)
    regions, count = ndimage.label(grid > thresholds[1])
    areas = ndimage.sum_labels(np.ones_like(grid), regions, range(1, count + 1)) / total
    seeds = ndimage.sum_labels(grid > thresholds[0], regions, range(1, count + 1)) / total
    for number, (area, seed) in enumerate(zip(areas, seeds, strict=True), start=1):
        if area >= config.area and seed >= config.seed_area:
            inside = regions == number
            height = thresholds[1] + config.outline * (np.quantile(grid[inside], HIGH) - thresholds[1])
            yield float(seed), _outline(inside & (grid >= height))


def _outline(region: np.ndarray) -> Tensor:
    """Return the region, a pixel wider, with a soft border: float32 [1, *spatial]."""
    return torch.from_numpy(ndimage.gaussian_filter(ndimage.binary_dilation(region).astype(np.float32), SOFT))[None]


def paste(clean: Tensor, body: Tensor, findings: Tensor, config: PastingConfig, rng: Rng) -> tuple[Tensor, Tensor]:
    """Return images with a finding each, [B, C, *spatial], and its coverage in [0, 1], [B, 1, *spatial].

    Args:
        clean: float32 [B, C, *spatial] in [-1, 1].
        body: bool [B, 1, *spatial]; coverage is 0 outside.
        findings: float32 [B, C + 1, *spatial], as in `Batch.findings`.
        config: ranges of the changes.
        rng: one stream per row.
    """
    one = [1] * (clean.ndim - 1)
    moved = _move(findings, config, rng.fork("move"))
    image, coverage = moved[:, :-1], moved[:, -1:] * body
    gain = 1 + config.gain * rng.fork("gain").uniform(*one, low=-1.0, high=1.0)
    image = ((image + 1) * gain - 1).clamp(-1, 1)
    strength = between(rng.fork("strength"), config.strength, *one)
    return clean.lerp(image, strength * coverage), coverage


def _move(findings: Tensor, config: PastingConfig, rng: Rng) -> Tensor:
    """Return findings mirrored (half of them), turned and scaled about the middle of their outline, and shifted."""
    mirrored = rng.uniform(*[1] * (findings.ndim - 1)) < 0.5
    findings = findings.where(~mirrored, findings.flip(-1))
    middle = _middle(findings[:, -1:])
    about = PoseConfig(rotate_degrees=config.rotate_degrees, scale=config.scale, shift=config.shift)
    matrix = pose_matrices(findings.ndim - 2, about, rng.fork("pose"))
    turn, shift = matrix[:, :, :-1], matrix[:, :, -1:]
    # A pixel at `middle + shift` is sampled at `middle`: places -> turn (places - middle - shift) + middle.
    offset = middle[:, :, None] - turn @ (middle[:, :, None] + shift)
    places = F.affine_grid(torch.cat([turn, offset], dim=2), list(findings.shape), align_corners=False)
    image = F.grid_sample(findings[:, :-1], places, padding_mode="border", align_corners=False)
    return torch.cat([image, F.grid_sample(findings[:, -1:], places, align_corners=False)], dim=1)


def _middle(outlines: Tensor) -> Tensor:
    """Return the centre of mass of outlines [B, 1, *spatial]: [B, dims] in -1..1 over the edge, last axis first."""
    weights = outlines[:, 0, ..., None]
    axes = tuple(range(1, outlines.ndim - 1))
    return (pixel_places(outlines) * weights).sum(dim=axes) / weights.sum(dim=axes).clamp_min(1e-6)
