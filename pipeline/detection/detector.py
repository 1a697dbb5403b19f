"""Detector: a model of normality with its comparison, aggregation and calibration. Immutable."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from pipeline.detection.aggregate import aggregate_maps
from pipeline.detection.config import DetectionConfig
from pipeline.detection.conformal import Calibration
from pipeline.detection.residual import ResidualConfig, across, clean, counted_body, residual
from pipeline.detection.scorer import Scorer, refuse_broken, refuse_misfit
from pipeline.detection.slices import BatchResult
from pipeline.detection.two_sided import TwoSided
from pipeline.detection.volumes import in_parts, joined, refuse_no_series, refuse_no_volumes, series_answer
from pipeline.errors import ConfigError
from pipeline.methods.base import Method
from pipeline.methods.capabilities import AnomalyMapper, Reconstructor, ScanScorer
from pipeline.methods.stored_model import Model
from pipeline.nn.gradients import unless_kept
from pipeline.nn.rng import Rng
from pipeline.types import Batch


@dataclass(frozen=True, slots=True)
class Detector(Scorer):
    """A detector with one model; see `Scorer` for the parts it shares with an ensemble.

    Attributes:
        model: the trained model, in eval mode while scoring.
    """

    model: Model
    config: DetectionConfig
    route: str
    seed: int = 0
    calibration: Calibration | None = None
    two_sided: TwoSided | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.method, Reconstructor | AnomalyMapper | ScanScorer):
            raise ConfigError(
                f"The method {self.method.config.name} neither reconstructs, nor maps, nor scores, so it cannot "
                "detect. Implement reconstruct, anomaly_map or score."
            )
        refuse_no_volumes(self.method, self.volumes, self.normaliser.image_size, self.has_maps)
        if self.residual.whole and not self.has_maps:
            raise ConfigError(
                f"{self.method.config.name} gives one number per slice, so there are no maps to combine with those of "
                "adjacent slices. Leave out adjacent and hysteresis of detection.residual."
            )

    @property
    def models(self) -> tuple[Model, ...]:
        """The one model."""
        return (self.model,)

    @property
    def method(self) -> Method:
        """The model's method."""
        return self.model.method

    @property
    def residual(self) -> ResidualConfig:
        """The comparison of image and reconstruction."""
        return self.config.residual

    @property
    def whole(self) -> bool:
        """Whether a batch must be a whole series."""
        return self.volumes is not None or self.residual.whole

    @property
    def has_maps(self) -> bool:
        """Whether scores come with a heatmap."""
        return isinstance(self.method, Reconstructor | AnomalyMapper)

    def raw_batch(self, batch: Batch) -> BatchResult:
        """Score one batch before any transform; see `score_batch`."""
        self._refuse_misfit(batch)
        if not self.has_maps:
            return self._numbers(batch)
        answer = self._answered(batch)
        parts = [self._compared(batch, answer, part) for part in self._parts(batch)]
        scores, maps = (joined(column) for column in zip(*parts, strict=True))
        if self.residual.whole:
            scores, maps = self._across(batch, maps)
        if isinstance(self.method, AnomalyMapper):
            return BatchResult(scores, maps, None)
        # Outside the body the answer counts for nothing, and a model may paint anything there.
        return BatchResult(scores, maps, torch.where(batch.body.to(answer.device), answer, batch.images.to(answer)))

    def answer(self, batch: Batch) -> Tensor:
        """Return the method's output before any comparison: x_hat [B, C, *spatial], or its own map [B, 1, ...].

        All residuals and aggregates can be computed from it without another forward pass.

        Raises:
            ConfigError: the method gives neither, or the batch does not fit the method.
        """
        if not self.has_maps:
            raise ConfigError(
                f"{self.method.config.name} gives one number per slice, so there is nothing to compare again. Use "
                "score_batch."
            )
        self._refuse_misfit(batch)
        return self._answered(batch)

    def _refuse_misfit(self, batch: Batch) -> None:
        if self.volumes is None:
            self.method.check(batch.images)
        else:
            refuse_no_series(batch, self.method, self.normaliser.image_size)
        refuse_misfit(batch)

    def _answered(self, batch: Batch) -> Tensor:
        if self.volumes is None:
            return joined([self._answer(batch.part(part)) for part in self._parts(batch)])
        reconstructs = not isinstance(self.method, AnomalyMapper)
        return series_answer(batch, self.volumes, self.config.tiles, self._answer, reconstructs)

    def _parts(self, batch: Batch) -> list[slice]:
        """Return the parts to compute at once: a batch in one piece, a (possibly long) series in parts of
        batch size.
        """
        return in_parts(self.config.batch_size if self.whole else len(batch.ids), len(batch.ids))

    def _across(self, batch: Batch, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores and maps of a series, with maps that take its other slices into account."""
        counted = counted_body(batch.body.to(self.device), self.residual)
        maps = across(maps, counted, self.residual)
        return aggregate_maps(maps, counted, self.aggregate), maps

    def _answer(self, batch: Batch) -> Tensor:
        """Run the method on images of its own size."""
        x, rng, conditions = self._inputs(batch)
        with self.method.inference(), self._precision():
            if isinstance(self.method, AnomalyMapper):
                return self.method.anomaly_map(x, rng, **conditions).float()
            return (
                cast(Reconstructor, self.method).reconstruct(x, rng, batch.body.to(self.device), **conditions).float()
            )

    def _inputs(self, batch: Batch) -> tuple[Tensor, Rng, dict[str, Any]]:
        """Return the images on the device, the rows' randomness, and the attributes for a conditional method."""
        conditions = {"about": batch.about} if self.method.conditional else {}
        return batch.images.to(self.device, torch.float32), Rng.scoring(self.seed, batch.ids, self.device), conditions

    def _compared(self, batch: Batch, answer: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        """Return scores [n] and maps [n, 1, *spatial] of some rows."""
        x, body = batch.images[part].to(self.device, torch.float32), batch.body[part].to(self.device)
        counted, given = counted_body(body, self.residual), answer[part].to(self.device)
        with unless_kept():
            if isinstance(self.method, AnomalyMapper):
                maps = clean(given, self.residual).masked_fill(~counted, 0.0)
            else:
                maps = residual(x, given, body, self.residual)
            scores = aggregate_maps(maps, counted, self.aggregate)
        refuse_broken(scores, counted)
        return scores, maps

    def _numbers(self, batch: Batch) -> BatchResult:
        """Score with a method that gives one number per image."""
        x, rng, conditions = self._inputs(batch)
        with self.method.inference(), self._precision():
            scores = cast(ScanScorer, self.method).score(x, rng, **conditions).double()
        body = batch.body.to(self.device)
        refuse_broken(scores, body)
        return BatchResult(scores.masked_fill(~body.flatten(1).any(dim=1), torch.nan), None, None)

    def _precision(self) -> AbstractContextManager[object]:
        if self.config.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)
