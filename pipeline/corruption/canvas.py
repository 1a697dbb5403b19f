"""Base of every texture: what it paints on, and how it may change the outline that was drawn for it."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field
from torch import Tensor

from pipeline.config import Config
from pipeline.corruption.shapes import ShapeConfig
from pipeline.nn.rng import Rng


@dataclass(frozen=True, slots=True)
class Canvas:
    """Inputs of a texture; the rows are those that drew this texture.

    Attributes:
        images: float32 [B, C, *spatial] in [-1, 1].
        body: bool [B, 1, *spatial].
        coverage: float32 [B, 1, *spatial], the lesion's.
        radius: [B], the lesion's radius / image edge.
        others: float32 [B, C, *spatial], another image of the batch for each row (the same image in a batch of one).
        region: bool [B, 1, *spatial], the part of the body where lesions may lie; None for all of it.
        core: float32 [B, 1, *spatial], the outline as it was drawn, before `cover` changed it; None where it did not.
    """

    images: Tensor
    body: Tensor
    coverage: Tensor
    radius: Tensor
    others: Tensor
    region: Tensor | None = None
    core: Tensor | None = None


class TextureConfig(Config):
    """Fields of every texture."""

    weight: float = Field(1.0, gt=0, description="frequency relative to the other textures")
    shape: ShapeConfig | None = Field(None, description="size and outline of these lesions; null: those of all lesions")

    def cover(self, canvas: Canvas, rng: Rng) -> Tensor:
        """Return the coverage [B, 1, *spatial] of this lesion: the outline that was drawn, unless a texture differs."""
        return canvas.coverage


def mean_under(x: Tensor, coverage: Tensor) -> Tensor:
    """Return the mean [B, C, 1, ...] of each image under its lesion."""
    axes = tuple(range(2, x.ndim))
    return (x * coverage).sum(dim=axes, keepdim=True) / coverage.sum(dim=axes, keepdim=True).clamp_min(1e-6)
