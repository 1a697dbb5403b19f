"""A detector: a model of normality, what is compared and how, and what its scores mean. Immutable once made."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import ValidationError
from torch import Tensor

from pipeline.data.normalise import Normaliser
from pipeline.detection.aggregate import aggregate_maps
from pipeline.detection.artefact import read_method, read_sealed, reference, write_artefact
from pipeline.detection.calibrate import Calibration
from pipeline.detection.config import DetectionConfig
from pipeline.detection.residual import ResidualConfig, clean, counted_body, residual
from pipeline.detection.scorer import Scorer, refuse_broken, refuse_misfit, shared_fields
from pipeline.detection.slices import Scored
from pipeline.detection.two_sided import TwoSided
from pipeline.errors import ArtefactError, ConfigError
from pipeline.methods.artefact import method_spec
from pipeline.methods.base import AnomalyMapper, Method, Reconstructor, ScanScorer
from pipeline.nn.rng import Rng
from pipeline.types import Batch, RunRef


@dataclass(frozen=True, slots=True)
class Detector(Scorer):
    """One model that scores slices, scans and files; see `Scorer` for what it shares with an ensemble.

    Attributes:
        method: the trained model of normality, in eval mode while scoring.
    """

    method: Method
    normaliser: Normaliser
    config: DetectionConfig
    route: str
    seed: int = 0
    calibration: Calibration | None = None
    two_sided: TwoSided | None = None

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

    @property
    def methods(self) -> tuple[Method, ...]:
        """The one model."""
        return (self.method,)

    @property
    def residual(self) -> ResidualConfig:
        """How image and reconstruction are compared."""
        return self.config.residual

    @property
    def has_maps(self) -> bool:
        """Whether scores come with a heatmap."""
        return isinstance(self.method, Reconstructor | AnomalyMapper)

    @property
    def spec(self) -> dict[str, Any]:
        """JSON of everything but the weights."""
        return {"method": method_spec(self.method), **self.shared_spec}

    def raw_batch(self, batch: Batch) -> Scored:
        """Score one batch before any transform; see `score_batch`."""
        refuse_misfit(batch, self.method)
        x, body = batch.images.to(self.device, torch.float32), batch.body.to(self.device)
        rng = Rng.scoring(self.seed, batch.ids, self.device)
        counted = counted_body(body, self.residual) if self.has_maps else body
        told = {"about": batch.about} if self.method.conditional else {}
        with self.method.inference():
            maps, x_hat = self._maps(x, body, counted, rng, told) if self.has_maps else (None, None)
            if maps is not None:
                score = aggregate_maps(maps, counted, self.aggregate)
            else:
                score = self._scan_scores(x, body, rng, told)
        refuse_broken(score, counted)
        return Scored(score, maps, x_hat)

    def answer(self, batch: Batch) -> Tensor:
        """Return what the method says before anything is compared: x_hat [B, C, *spatial], or its own map [B, 1, ...].

        From it every residual and aggregate can be had without another forward pass.

        Raises:
            ConfigError: the method gives neither, or the batch does not fit it.
        """
        if not self.has_maps:
            raise ConfigError(f"{self.method.config.name} gives one number a slice: there is nothing to compare anew.")
        refuse_misfit(batch, self.method)
        x, body = batch.images.to(self.device, torch.float32), batch.body.to(self.device)
        told = {"about": batch.about} if self.method.conditional else {}
        with self.method.inference():
            return self._answer(x, body, Rng.scoring(self.seed, batch.ids, self.device), told)

    def _answer(self, x: Tensor, body: Tensor, rng: Rng, told: dict[str, Any]) -> Tensor:
        with self._precision():
            if isinstance(self.method, AnomalyMapper):
                return self.method.anomaly_map(x, rng, **told).float()
            return self.method.reconstruct(x, rng, body, **told).float()

    def _maps(
        self, x: Tensor, body: Tensor, counted: Tensor, rng: Rng, told: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        answer = self._answer(x, body, rng, told)
        if isinstance(self.method, AnomalyMapper):
            return clean(answer, self.residual).masked_fill(~counted, 0.0), None
        return residual(x, answer, body, self.residual), answer

    def _scan_scores(self, x: Tensor, body: Tensor, rng: Rng, told: dict[str, Any]) -> Tensor:
        with self._precision():
            scores = self.method.score(x, rng, **told).double()
        return scores.masked_fill(~body.flatten(1).any(dim=1), torch.nan)

    def _precision(self) -> AbstractContextManager[object]:
        if self.config.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

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
        return cls.opened(read_sealed(Path(folder), sha256), Path(folder))

    @classmethod
    def opened(cls, spec: dict[str, Any], folder: Path) -> Self:
        """Return the detector of a folder that `read_sealed` checked and gave `spec` of (ArtefactError on a misfit)."""
        return cls.from_spec(spec, read_method(spec, folder))

    @classmethod
    def from_spec(cls, spec: dict[str, Any], method: Method) -> Self:
        """Return the detector that `spec` describes, around a method with its weights (ArtefactError on a misfit)."""
        try:
            return cls(method=method, **shared_fields(spec))
        except (ValidationError, TypeError, ValueError) as error:
            reason = f"{error.error_count()} fields" if isinstance(error, ValidationError) else type(error).__name__
            raise ArtefactError(f"The detector's specification does not fit this release ({reason}).") from None

    @staticmethod
    def reference(folder: str | Path, run: str | Path | None = None) -> RunRef:
        """Return the SHA-256 of a saved detector, with `run` (default: the folder itself) as its path."""
        return reference(Path(folder), Path(run) if run is not None else Path(folder))
