"""Scoring shared by a single model and an ensemble, from raw slice scores to findings, independent of files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Self

import torch

from pipeline.data.images.normalise import Normaliser
from pipeline.data.images.volume import VolumeConfig
from pipeline.detection.aggregate import AggregateConfig, aggregate_study
from pipeline.detection.config import DetectionConfig
from pipeline.detection.conformal import Calibration
from pipeline.detection.slices import (
    BatchResult,
    Slices,
    content_id,
    native_result,
    read_series_stacks,
    slice_batches,
    slice_results,
)
from pipeline.detection.two_sided import TwoSided
from pipeline.errors import ConfigError, Rejected, RejectionCode
from pipeline.methods.base import Method
from pipeline.methods.stored_model import Model
from pipeline.types import Batch, Finding, SliceResult, SliceScore, Step


class Scorer:
    """Base of detectors, which score slices and studies: `Detector` (one model) and `Ensemble` (several).

    Attributes:
        config: comparison, aggregation, flagging.
        route: name of its route.
        seed: seed of scoring; randomness is a function of the seed and of each slice's id.
        calibration: calibration of the scores; None before calibration.
        two_sided: constants of the two-sided score; None if the transform is "none" or not fitted yet.
    """

    __slots__ = ()

    config: DetectionConfig
    route: str
    seed: int
    calibration: Calibration | None
    two_sided: TwoSided | None

    @property
    @abstractmethod
    def models(self) -> tuple[Model, ...]:
        """The trained models behind the scores; they share one normaliser."""

    @property
    @abstractmethod
    def whole(self) -> bool:
        """Whether a slice's score depends on its series: a batch is then all slices of one series, in order."""

    @property
    @abstractmethod
    def has_maps(self) -> bool:
        """Whether scores come with a heatmap."""

    @abstractmethod
    def raw_batch(self, batch: Batch) -> BatchResult:
        """Score one batch before any transform; see `score_batch`."""

    @property
    def member_names(self) -> tuple[str, ...]:
        """Names of an ensemble's members, in the order of `BatchResult.members`; () for a single detector."""
        return ()

    @property
    def methods(self) -> tuple[Method, ...]:
        """The models' methods."""
        return tuple(model.method for model in self.models)

    @property
    def normaliser(self) -> Normaliser:
        """The normaliser that the models were trained with."""
        return self.models[0].normaliser

    @property
    def volumes(self) -> VolumeConfig | None:
        """The conversion of series to volumes; None if the models use single slices."""
        return self.models[0].volumes

    @property
    def aggregate(self) -> AggregateConfig:
        """The aggregation of maps to scores."""
        return self.config.aggregate

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next((p.device for method in self.methods for p in method.parameters()), torch.device("cpu"))

    @property
    def spec(self) -> dict[str, Any]:
        """JSON of everything except the models."""
        return self.shared_spec

    @property
    def shared_spec(self) -> dict[str, Any]:
        """JSON of the parts shared by a single detector and an ensemble."""
        return {
            "route": self.route,
            "seed": self.seed,
            "detection": self.config.model_dump(mode="json"),
            "two_sided": None if self.two_sided is None else self.two_sided.model_dump(mode="json"),
            "calibration": None if self.calibration is None else self.calibration.model_dump(mode="json"),
        }

    def calibrated(self, calibration: Calibration) -> Self:
        """Return the same detector with a calibration."""
        return replace(self, calibration=calibration)  # type: ignore[type-var]

    def centred(self, two_sided: TwoSided) -> Self:
        """Return the same detector with the constants of its two-sided score, not calibrated."""
        return replace(self, two_sided=two_sided, calibration=None)  # type: ignore[type-var]

    def raw(self) -> Self:
        """Return the same detector without transform and calibration: used to fit constants."""
        return self.under(self.config.model_copy(update={"transform": "none"}))

    def under(self, config: DetectionConfig) -> Self:
        """Return the same models with another detection configuration, without constants and calibration, which belong
        to the old one.
        """
        return replace(self, config=config, two_sided=None, calibration=None)  # type: ignore[type-var]

    def score_batch(self, batch: Batch) -> BatchResult:
        """Score one batch; a row's result depends on the row and its id alone.

        Randomness depends on the seed and each of `batch.ids`; no global generator is used.

        Raises:
            ConfigError: images, bodies and ids do not match each other or the method, or a two-sided score has no
                constants yet.
            Rejected: a pixel or a score is NaN or infinite (non-finite-pixels).
        """
        if self.config.transform == "none":
            return self.raw_batch(batch)
        if self.two_sided is None:
            raise ConfigError(
                "This detector's score is two-sided, but its constants are not fitted yet. "
                "Calibrate the run, which fits them on validate normals."
            )
        scored = self.raw_batch(batch)
        return scored._replace(scores=self.two_sided.apply(scored.scores))

    def score_slices(self, data: Slices, batch_size: int | None = None) -> Iterator[SliceResult]:
        """Score a data set, slice by slice, in its order, in bounded memory.

        A slice's randomness depends on its pixels (their content address and frame, if the data set knows
        it), so that it scores the same from the catalogue, from a file, and after a rotation of the pseudonyms.
        """
        if self.whole:
            yield from self._score_stacks(data)
            return
        for batch in slice_batches(data, batch_size or self.config.batch_size):
            seeds = tuple(content_id(data, item) for item in batch.ids)
            yield from slice_results(batch, self.score_batch(replace(batch, ids=seeds)))

    def _score_stacks(self, data: Slices) -> Iterator[SliceResult]:
        """Score whole series, one at a time, and yield the requested slices of each."""
        for stack in read_series_stacks(data):
            results = list(slice_results(stack.batch, self.score_batch(stack.batch)))
            yield from (results[place].alone(slice_id) for place, slice_id in stack.selected.items())

    def native(self, result: SliceResult, step: Step | None = None, reconstruction: bool = True) -> SliceResult:
        """Return a slice's result on its own grid; `step` is the normaliser's, by default the last of its history.

        At 512 x 512 this costs more than a small model's forward pass: do it only for slices that are displayed, and
        leave out the reconstruction if it is not needed.
        """
        return native_result(self.normaliser, result, step or result.history[-1], reconstruction)

    def finding(self, slices: Sequence[SliceScore]) -> Finding:
        """Aggregate the slices of one study, all its series on this route, with its p-value.

        Raises:
            Rejected: no slice has a body to score (empty-foreground).
        """
        score, evidence = aggregate_study(slices, self.aggregate)
        finding = Finding(slices[0].study_id, slices[0].patient_id, self.route, score, evidence=evidence)
        if self.calibration is None:
            return finding
        return replace(
            finding,
            p_value=self.calibration.p_value(score),
            n_calibration=self.calibration.n,
            guarantee=self.calibration.guarantee,
        )


def fields_of(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments described by `Scorer.shared_spec`; pydantic's errors are passed on."""
    calibration, two_sided = spec["calibration"], spec["two_sided"]
    return {
        "config": DetectionConfig.model_validate(spec["detection"]),
        "route": str(spec["route"]),
        "seed": int(spec["seed"]),
        "calibration": None if calibration is None else Calibration.model_validate(calibration),
        "two_sided": None if two_sided is None else TwoSided.model_validate(two_sided),
    }


def refuse_misfit(batch: Batch) -> None:
    """Refuse a batch whose images, bodies and ids do not match (ConfigError)."""
    one = (batch.images.shape[0], 1, *batch.images.shape[2:])
    if tuple(batch.body.shape) != one or batch.body.dtype != torch.bool or len(batch.ids) != one[0] or not one[0]:
        raise ConfigError(
            f"{one[0]} images need as many ids and a bool body of {list(one)}; {len(batch.ids)} ids and a "
            f"{batch.body.dtype} body of {list(batch.body.shape)} were given."
        )


def refuse_broken(scores: torch.Tensor, body: torch.Tensor) -> None:
    """Refuse scores that are NaN or infinite although there is a body (Rejected, non-finite-pixels)."""
    expected = body.flatten(1).any(dim=1)
    if broken := int((expected & ~torch.isfinite(scores)).sum()):
        raise Rejected(
            RejectionCode.NON_FINITE,
            f"{broken} of {len(scores)} scores are NaN or infinite although every pixel is finite, so the model's "
            "weights are broken. Train it again.",
        )
