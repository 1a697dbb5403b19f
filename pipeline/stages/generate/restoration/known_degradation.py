"""A degradation whose drawing can be repeated, so that an answer may know what was measured and how."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from pipeline.corruption.degrade import DegradationConfig
from pipeline.corruption.degrade_masks import MaskConfig
from pipeline.corruption.degrade_operators import Chain
from pipeline.nn.rng import Rng
from pipeline.stages.generate.restoration.paired import stream_of
from pipeline.types import Batch


@dataclass(frozen=True, slots=True)
class KnownDegradation:
    """One way of degrading, as a problem uses it.

    Attributes:
        way: the degradation.
        seed: of the task.
    """

    way: DegradationConfig
    seed: int

    @property
    def name(self) -> str:
        """Name of the problem."""
        return self.way.label

    @property
    def std(self) -> float:
        """Standard deviation of the noise on what is measured, about."""
        return 0.0 if self.way.noise is None else self.way.noise.level

    @property
    def only_hides(self) -> bool:
        """Whether pixels are missing and all others are exact, so that they may be put back."""
        return self.way.noise is None and all(isinstance(step, MaskConfig) for step in self.way.steps)

    def degrade(self, batch: Batch, rng: Rng) -> Batch:
        """Return the batch degraded, with the mask of missing pixels as `condition` if any is missing."""
        worse = self.way.degrade(batch.images, rng)
        return replace(batch, images=worse.images, condition=worse.missing if bool(worse.missing.any()) else None)

    def operator(self, worse: Batch) -> Chain:
        """Return the linear part as it was drawn for a degraded batch."""
        return self.way.operator(stream_of(self.seed, worse.ids, self.name), worse.images.shape[2:])

    def region(self, worse: Batch) -> Tensor:
        """Return where errors count: missing pixels within the body, all missing ones where it has none, or the
        body."""
        if worse.condition is None:
            return worse.body
        missing = worse.condition > 0
        inside = missing & worse.body
        return inside | (missing & ~inside.flatten(1).any(dim=1).reshape(-1, *[1] * (inside.ndim - 1)))
