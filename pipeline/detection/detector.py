"""A detector: a model of normality, what is compared and how, and what its scores mean. Immutable once made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, ValidationError
from torch import Tensor

from pipeline.config import Config, DecodeLimits
from pipeline.data.normalise import Normaliser
from pipeline.detection.aggregate import AggregateConfig, aggregate_maps, aggregate_study
from pipeline.detection.artefact import read_artefact, reference, write_artefact
from pipeline.detection.calibrate import Calibration
from pipeline.detection.flag import FlaggingConfig
from pipeline.detection.residual import ResidualConfig, clean, counted_body, residual
from pipeline.detection.scan import ScanResult, score_files, score_scan
from pipeline.detection.slices import (
    Scored,
    SliceResult,
    Slices,
    content_id,
    native_map,
    slice_batches,
    slice_results,
)
from pipeline.dicom.sandbox import DecodeWorkers
from pipeline.errors import ArtefactError, ConfigError, Rejected, RejectionCode
from pipeline.methods.artefact import method_spec
from pipeline.methods.base import AnomalyMapper, Method, Reconstructor, ScanScorer
from pipeline.nn.rng import Rng
from pipeline.types import AnomalyMap, Batch, Finding, RunRef, Scan, SliceScore, Step


class DetectionConfig(Config):
    """From a reconstruction to a flagged list."""

    residual: ResidualConfig = Field(ResidualConfig(), description="how image and reconstruction are compared")
    aggregate: AggregateConfig = Field(AggregateConfig(), description="from map to slice, series and study")
    flagging: FlaggingConfig = Field(FlaggingConfig(), description="which findings of a night are flagged")
    batch_size: int = Field(64, ge=1, description="slices scored at once; no score depends on it")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="of the method's forward pass; residual and score are fp32 and fp64 always"
    )


@dataclass(frozen=True, slots=True)
class Detector:
    """Scores slices, scans and files.

    Attributes:
        method: the trained model of normality, in eval mode while scoring.
        normaliser: the one that it was trained with.
        config: comparison, aggregation, flagging.
        route: name of the route whose scans it takes.
        seed: of the randomness at scoring, which is a function of the seed and of each slice's own id.
        calibration: what the scores mean; None before it.
    """

    method: Method
    normaliser: Normaliser
    config: DetectionConfig
    route: str
    seed: int = 0
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.method, Reconstructor | AnomalyMapper | ScanScorer):
            raise ConfigError(
                f"The method {self.method.config.name} neither reconstructs, nor maps, nor scores: it cannot detect. "
                "Give it one of reconstruct, anomaly_map or score."
            )
        if self.method.spatial_dims == 2 and self.method.image_size != self.normaliser.image_size:
            raise ConfigError(
                f"The method takes images of {self.method.image_size} pixels and the normaliser gives "
                f"{self.normaliser.image_size}. Build the method with the normaliser's image_size."
            )

    @classmethod
    def of(cls, method: Method, normaliser: Normaliser, config: DetectionConfig, route: str, seed: int = 0) -> Detector:
        """Return a detector that is not calibrated yet."""
        return cls(method, normaliser, config, route, seed)

    def calibrated(self, calibration: Calibration) -> Detector:
        """Return the same detector with a calibration."""
        return replace(self, calibration=calibration)

    @property
    def residual(self) -> ResidualConfig:
        """How image and reconstruction are compared."""
        return self.config.residual

    @property
    def aggregate(self) -> AggregateConfig:
        """How maps become scores."""
        return self.config.aggregate

    @property
    def has_maps(self) -> bool:
        """Whether scores come with a heatmap."""
        return isinstance(self.method, Reconstructor | AnomalyMapper)

    @property
    def device(self) -> torch.device:
        """Where the method's weights are."""
        return next((p.device for p in self.method.parameters()), torch.device("cpu"))

    @property
    def spec(self) -> dict[str, Any]:
        """JSON of everything but the weights."""
        return {
            "method": method_spec(self.method),
            "normaliser": self.normaliser.to_json(),
            "detection": self.config.model_dump(mode="json"),
            "route": self.route,
            "seed": self.seed,
            "calibration": None if self.calibration is None else self.calibration.model_dump(mode="json"),
        }

    def score_batch(self, batch: Batch) -> Scored:
        """Score one batch; a row's result depends on the row and its id alone.

        Randomness: of the seed and each of `batch.ids`; no global generator is read or moved.

        Raises:
            ConfigError: images, bodies and ids do not fit each other or the method.
            Rejected: a pixel or a score is NaN or infinite (non-finite-pixels).
        """
        _check(batch, self.method)
        x, body = batch.images.to(self.device, torch.float32), batch.body.to(self.device)
        rng = Rng.scoring(self.seed, batch.ids, self.device)
        counted = counted_body(body, self.residual) if self.has_maps else body
        with self.method.inference():
            maps, x_hat = self._maps(x, body, counted, rng) if self.has_maps else (None, None)
            score = self._scan_scores(x, body, rng) if maps is None else aggregate_maps(maps, counted, self.aggregate)
        _refuse_broken(score, counted)
        return Scored(score, maps, x_hat)

    def _maps(self, x: Tensor, body: Tensor, counted: Tensor, rng: Rng) -> tuple[Tensor, Tensor | None]:
        if isinstance(self.method, AnomalyMapper):
            with self._precision():
                maps = self.method.anomaly_map(x, rng)
            return clean(maps.float(), self.residual).masked_fill(~counted, 0.0), None
        with self._precision():
            x_hat = self.method.reconstruct(x, rng, body)
        return residual(x, x_hat, body, self.residual), x_hat.float()

    def _scan_scores(self, x: Tensor, body: Tensor, rng: Rng) -> Tensor:
        with self._precision():
            scores = self.method.score(x, rng).double()
        return scores.masked_fill(~body.flatten(1).any(dim=1), torch.nan)

    def _precision(self) -> AbstractContextManager[object]:
        if self.config.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def score_slices(self, data: Slices, batch_size: int | None = None) -> Iterator[SliceResult]:
        """Score a data set, slice by slice, in its order, in memory that does not grow.

        A slice's randomness comes from what its pixels are (their content address and frame, where the data set knows
        it), so that it scores the same from the catalogue, from a file, and after a rotation of the pseudonyms.
        """
        for batch in slice_batches(data, batch_size or self.config.batch_size):
            seeds = tuple(content_id(data, item) for item in batch.ids)
            yield from slice_results(batch, self.score_batch(replace(batch, ids=seeds)))

    def native(self, result: SliceResult, step: Step, reconstruction: bool = True) -> AnomalyMap | None:
        """Bring a slice's map to the native grid; `step` is the normaliser's (`SliceDataset.step(id)`).

        At 512 x 512 this costs more than a small model's forward pass: do it for the slices that are looked at, and
        leave the reconstruction out where it is not shown.
        """
        return native_map(self.normaliser, result, step, reconstruction)

    def finding(self, slices: Sequence[SliceScore]) -> Finding:
        """Aggregate the slices of one study, all its series on this route, and say how unusual it is.

        Raises:
            Rejected: no slice has a body to score (empty-foreground).
        """
        score, evidence = aggregate_study(slices, self.aggregate)
        found = Finding(slices[0].study_id, slices[0].patient_id, self.route, score, evidence=evidence)
        if self.calibration is None:
            return found
        return replace(
            found,
            p_value=self.calibration.p_value(score),
            n_calibration=self.calibration.n,
            guarantee=self.calibration.guarantee,
        )

    def score_scan(self, scan: Scan) -> ScanResult:
        """Score one series in physical units; see `pipeline.detection.scan.score_scan`."""
        return score_scan(self, scan)

    def score_file(self, path: str | Path, limits: DecodeLimits | None = None) -> ScanResult:
        """Score one DICOM file: score, p-value and heatmap; see `pipeline.detection.scan.score_files`."""
        return score_files(self, [Path(path)], limits or DecodeLimits())

    def score_files(
        self, paths: Sequence[str | Path], limits: DecodeLimits | None = None, workers: DecodeWorkers | None = None
    ) -> ScanResult:
        """Score the DICOM files of one study together; see `pipeline.detection.scan.score_files`."""
        return score_files(self, [Path(path) for path in paths], limits or DecodeLimits(), workers)

    def save(self, folder: str | Path) -> RunRef:
        """Write weights.safetensors, detector.json and manifest.json; the reference holds the manifest's SHA-256."""
        return write_artefact(Path(folder), self.spec, self.method)

    @classmethod
    def load(cls, folder: str | Path, sha256: str | None = None) -> Self:
        """Read a detector. Nothing in the folder is executed, and a changed byte is refused.

        Args:
            folder: written by `save`.
            sha256: the registered one; given, the folder must be exactly that artefact.

        Raises:
            ArtefactError: a file is missing, altered, of another version, or not the registered one.
        """
        spec, method = read_artefact(Path(folder), sha256)
        calibration = spec["calibration"]
        try:
            return cls(
                method=method,
                normaliser=Normaliser.from_json(spec["normaliser"]),
                config=DetectionConfig.model_validate(spec["detection"]),
                route=str(spec["route"]),
                seed=int(spec["seed"]),
                calibration=None if calibration is None else Calibration.model_validate(calibration),
            )
        except (ValidationError, TypeError, ValueError) as error:
            reason = f"{error.error_count()} fields" if isinstance(error, ValidationError) else type(error).__name__
            raise ArtefactError(f"The detector's specification does not fit this release ({reason}).") from None

    @staticmethod
    def reference(folder: str | Path, run: str | Path | None = None) -> RunRef:
        """Return the SHA-256 of a saved detector, with `run` (default: the folder itself) as its path."""
        return reference(Path(folder), Path(run) if run is not None else Path(folder))


def _check(batch: Batch, method: Method) -> None:
    method.check(batch.images)
    one = (batch.images.shape[0], 1, *batch.images.shape[2:])
    if tuple(batch.body.shape) != one or batch.body.dtype != torch.bool or len(batch.ids) != one[0] or not one[0]:
        raise ConfigError(
            f"{one[0]} images need as many ids and a bool body of {list(one)}; {len(batch.ids)} ids and a "
            f"{batch.body.dtype} body of {list(batch.body.shape)} were given."
        )


def _refuse_broken(scores: Tensor, body: Tensor) -> None:
    expected = body.flatten(1).any(dim=1)
    if broken := int((expected & ~torch.isfinite(scores)).sum()):
        raise Rejected(
            RejectionCode.NON_FINITE,
            f"{broken} of {len(scores)} scores are NaN or infinite though every pixel is finite: the model's weights "
            "are broken. Train it again.",
        )
