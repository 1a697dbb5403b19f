"""Degradation as what a method learns from: fields that configure it, what it is shown, and how it detects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Config
from pipeline.corruption.degrade import DegradationConfig, Degraded, Downsample
from pipeline.corruption.degrade_masks import Tiles
from pipeline.errors import ConfigError
from pipeline.nn.rng import Rng
from pipeline.types import Batch

Restore = Callable[[Tensor, Rng, Tensor | None], Tensor]  # as `Restorer.restore`


@dataclass(frozen=True, slots=True)
class RestorationLesson:
    """What a method that restores learns from.

    Attributes:
        clean: float32 [B, C, *spatial] in [-1, 1].
        seen: float32 [B, C + 1, *spatial], the degraded images and where pixels are missing.
        missing: float32 [B, 1, *spatial].
    """

    clean: Tensor
    seen: Tensor
    missing: Tensor


class RestoringFields(Config):
    """Fields of a method's configuration that say what it learns to undo, and what it undoes as a detector."""

    degradations: tuple[DegradationConfig, ...] | None = Field(
        None,
        min_length=1,
        description="what it learns to undo: one of these is drawn for every image; null: those of the task that "
        "trains it, and downsampling by 4 without a task",
    )
    asked: DegradationConfig | None = Field(
        None,
        description="what is done to a scan that it is to judge as a detector; null: the first of `degradations`. With "
        "`tiles`, both colours are hidden in turn",
    )

    @property
    def ways(self) -> tuple[DegradationConfig, ...]:
        """What it learns to undo."""
        return self.degradations or (DegradationConfig(steps=(Downsample(),)),)

    def check_ways(self, image_size: int, spatial_dims: int) -> None:
        """Refuse degradations that do not fit images of this size (ConfigError)."""
        for way in (*self.ways, *(() if self.asked is None else (self.asked,))):
            way.operator(Rng([0]), [image_size] * spatial_dims)

    @property
    def times_asked(self) -> int:
        """How often a scan is restored as a detector: twice with tiles, of each colour once."""
        return 2 if isinstance(self._asked.steps[0] if self._asked.steps else None, Tiles) else 1

    @property
    def _asked(self) -> DegradationConfig:
        return self.ways[0] if self.asked is None else self.asked

    def study(self, batch: Batch, rng: Rng) -> RestorationLesson:
        """Return the batch degraded, each image in one of the ways; its own images are unchanged.

        A batch with targets is a lesson already: its images are seen, and its targets are to be given.
        """
        if batch.target is not None:
            seen = see(batch.images.float(), None)
            return RestorationLesson(batch.target.float(), seen, seen[:, -1:])
        worse = self._degrade(batch.images, rng.fork("degradation"))
        return RestorationLesson(batch.images.float(), see(worse.images, worse.missing), worse.missing)

    def _degrade(self, images: Tensor, rng: Rng) -> Degraded:
        ways = self.ways
        if len(ways) == 1:
            return ways[0].degrade(images, rng)
        way = rng.fork("way").integers(0, len(ways)).cpu()
        worse, missing = images.float().clone(), torch.zeros_like(images[:, :1], dtype=torch.float32)
        for number, one in enumerate(ways):
            rows = (way == number).nonzero().flatten().tolist()
            if rows:
                worse[rows], missing[rows] = one.degrade(images[rows], rng.rows(rows))
        return Degraded(worse, missing)

    def repair_by(self, restore: Restore, x: Tensor, rng: Rng) -> Tensor:
        """Return x_hat [B, C, *spatial]: x degraded as `asked`, and restored; no pixel of a tile sees itself."""
        asked = self._asked
        if asked.steps and isinstance(asked.steps[0], Tiles):
            x_hat = x.float()
            for colour in (0, 1):
                tiles = asked.model_copy(
                    update={"steps": (asked.steps[0].model_copy(update={"colour": colour}), *asked.steps[1:])}
                )
                worse = tiles.degrade(x, rng.fork(f"tiles {colour}"))
                better = restore(worse.images, rng.fork(f"restored {colour}"), worse.missing)
                x_hat = torch.where(worse.missing > 0, better, x_hat)
            return x_hat
        worse = asked.degrade(x, rng.fork("degraded"))
        return restore(worse.images, rng.fork("restored"), worse.missing)


def see(worse: Tensor, missing: Tensor | None) -> Tensor:
    """Return what a network sees of degraded images: [B, C + 1, *spatial]; no mask means that nothing is missing."""
    mask = torch.zeros_like(worse[:, :1]) if missing is None else missing.to(worse)
    return torch.cat([worse, mask], dim=1)


def check_missing(method: str, worse: Tensor, condition: Tensor | None) -> Tensor | None:
    """Return the condition of `Restorer.restore` if it is a mask of missing pixels on the grid of the images, or None.

    Raises:
        ConfigError: another shape, or values other than 0 and 1.
    """

    shape = (len(worse), 1, *worse.shape[2:])
    if condition is None:
        return None
    if tuple(condition.shape) != shape or not ((condition == 0) | (condition == 1)).all():
        raise ConfigError(
            f"{method} was given a condition of the shape {list(condition.shape)}. It takes a mask {list(shape)} on "
            "the grid of its images, 1 where pixels are missing and 0 elsewhere, or None."
        )
    return condition
