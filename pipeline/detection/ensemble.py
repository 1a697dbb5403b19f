"""Ensemble: the weighted mean of several detectors of one route, each z-scored on validate normals.

It shares everything after the raw slice score with a single detector (`Scorer`), and also the file (`detector.json`),
so that calibration, findings, stages and registry treat both in the same way. The members' models are named by SHA-256:
training a member again changes no ensemble.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Config
from pipeline.detection.config import DetectionConfig
from pipeline.detection.conformal import Calibration
from pipeline.detection.detector import Detector
from pipeline.detection.residual import connected, counted_body
from pipeline.detection.scorer import Scorer
from pipeline.detection.slices import BatchResult
from pipeline.detection.two_sided import TwoSided
from pipeline.errors import ConfigError, TooFewNormals
from pipeline.methods.stored_model import Model
from pipeline.types import Batch, RunRef

ROUNDING = 1e-6  # a spread below this share of the mean is float32 rounding
LEAST = 10  # validate slices with a score, needed for mean and standard deviation


class Moments(Config):
    """Mean and standard deviation of validate normals: of scores, or of the pixels of maps."""

    mean: float
    std: float = Field(gt=0)

    def z(self, values: Tensor) -> Tensor:
        """Return (values - mean) / std."""
        return (values - self.mean) / self.std


@dataclass(frozen=True, slots=True)
class Member:
    """One detector of the ensemble.

    Attributes:
        detector: the calibrated detector of its run; its own calibration is not used.
        origin: the run folder's name, and the SHA-256 of its detector.
        score, map: moments of its scores and its maps' pixels on validate normals; `map` is None without maps.
        weight: of its z-scores in the mean, relative to the other members'.
    """

    detector: Detector
    origin: RunRef
    score: Moments
    map: Moments | None
    weight: float = 1.0

    @property
    def spec(self) -> dict[str, Any]:
        """JSON of everything except the model."""
        return {
            "run": self.origin.path,
            "sha256": self.origin.sha256,
            "detector": self.detector.spec,
            "score": self.score.model_dump(mode="json"),
            "map": None if self.map is None else self.map.model_dump(mode="json"),
            "weight": self.weight,
        }


@dataclass(frozen=True, slots=True)
class Ensemble(Scorer):
    """A detector that averages its members' z-scores; see `Scorer` for the parts it shares with a single detector.

    The map is the weighted mean of the z-scored maps of the members with maps, then with hysteresis if the ensemble's
    own configuration has it; the scores are means of the members', whatever becomes of the map. The reconstruction is
    the one of the first member that has any: it shows what this member compares with, and explains its share of the map
    only.
    """

    members: tuple[Member, ...]
    config: DetectionConfig
    route: str
    seed: int = 0
    calibration: Calibration | None = None
    two_sided: TwoSided | None = None

    def __post_init__(self) -> None:
        refuse_strangers([member.detector for member in self.members], self.route)

    @property
    def models(self) -> tuple[Model, ...]:
        """The members' models."""
        return tuple(member.detector.model for member in self.members)

    @property
    def whole(self) -> bool:
        """Whether any member needs whole series, or the hysteresis of their mean map."""
        return self.config.residual.connects or any(member.detector.whole for member in self.members)

    @property
    def has_maps(self) -> bool:
        """Whether any member has a map."""
        return any(member.map is not None for member in self.members)

    @property
    def member_names(self) -> tuple[str, ...]:
        """The members' methods, numbered where a method occurs more than once: "dae", "ae", "ae 2"."""
        names = [method.config.name for method in self.methods]
        earlier = [names[:place].count(name) for place, name in enumerate(names)]
        return tuple(f"{name} {count + 1}" if count else name for name, count in zip(names, earlier, strict=True))

    def raw_batch(self, batch: Batch) -> BatchResult:
        """Return the weighted mean z-score of each slice (NaN if a member has none), z-map, and a reconstruction."""
        scored = [(member, member.detector.score_batch(batch)) for member in self.members]
        scores = torch.stack([member.score.z(result.scores) for member, result in scored])
        mean_score = weighted_mean([(member.weight, row) for (member, _), row in zip(scored, scores, strict=True)])
        maps = [
            (member.weight, member.map.z(result.maps))
            for member, result in scored
            if member.map is not None and result.maps is not None
        ]
        inside = batch.body.to(self.device)
        mean = connected(weighted_mean(maps).masked_fill(~inside, 0.0), self.config.residual) if maps else None
        reconstructions = (result.reconstructions for _, result in scored if result.reconstructions is not None)
        return BatchResult(mean_score, mean, next(reconstructions, None), scores)

    @property
    def spec(self) -> dict[str, Any]:
        """JSON of everything except the models."""
        return {**self.shared_spec, "members": [member.spec for member in self.members]}


def weighted_mean(parts: Sequence[tuple[float, Tensor]]) -> Tensor:
    """Return sum(w v) / sum(w) of tensors of one shape."""
    if len({weight for weight, _ in parts}) == 1:
        return torch.stack([values for _, values in parts]).mean(dim=0)
    total = sum(weight for weight, _ in parts)
    return torch.stack([weight / total * values for weight, values in parts]).sum(dim=0)


def refuse_strangers(detectors: Sequence[Detector], route: str, images: dict[str, Any] | None = None) -> None:
    """Refuse members that do not match (ConfigError): fewer than two, other routes, other images.

    `images` (see `images_of`) are the required training images; default the first member's.
    """
    if len(detectors) < 2:
        raise ConfigError(f"An ensemble needs at least two members, not {len(detectors)}. Add members.")
    if strangers := sorted({detector.route for detector in detectors} - {route}):
        raise ConfigError(f"Members of {', '.join(strangers)} cannot score scans of {route}. Choose runs of one route.")
    for detector in detectors:
        if detector.model.images != (images or detectors[0].model.images):
            raise ConfigError(
                f"The member {detector.method.config.name} was trained on other images (size, range, body mask or "
                "volumes) than the ensemble. Choose members that share one `data.normaliser` and `data.volumes`."
            )


def z_score_members(
    detectors: Sequence[tuple[Detector, RunRef]], batches: Iterable[tuple[Batch, Sequence[int]]]
) -> tuple[Member, ...]:
    """Return the members with the moments of their scores and maps on validate normals, one pass for all.

    Args:
        detectors: detectors with their origins.
        batches: slices or whole series, and the rows of these that are validate normals.

    Raises:
        TooFewNormals: fewer than `LEAST` slices have a score.
        ConfigError: a member gives the same value to every slice or every pixel.
    """
    scores = [_Sums() for _ in detectors]
    maps = [_Sums() for _ in detectors]
    for batch, rows in batches:
        for (detector, _), score, pixels in zip(detectors, scores, maps, strict=True):
            scored = detector.score_batch(batch)
            chosen = scored.scores[rows]
            score.add(chosen[torch.isfinite(chosen)])
            if scored.maps is not None:
                body = batch.body[rows].to(scored.maps.device)
                pixels.add(scored.maps[rows][counted_body(body, detector.residual)])
    if (least := min(score.count for score in scores)) < LEAST:
        raise TooFewNormals(least, LEAST, "An ensemble's z-scores (slices of the validate set)")
    return tuple(
        Member(
            detector, origin, score.moments(detector, "score"), pixel.moments(detector, "map") if pixel.count else None
        )
        for (detector, origin), score, pixel in zip(detectors, scores, maps, strict=True)
    )


class _Sums:
    """Count, mean and summed squares of a stream (Chan, Golub and LeVeque 1983, equation 2.1), in float64."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, values: Tensor) -> None:
        """Add values of any shape."""
        new = values.double()
        if new.numel() == 0:
            return
        mean, squares = float(new.mean()), float((new - new.mean()).square().sum())
        total, shift = self.count + new.numel(), mean - self.mean
        self.squares += squares + shift**2 * self.count * new.numel() / total
        self.mean += shift * new.numel() / total
        self.count = total

    def moments(self, detector: Detector, what: str) -> Moments:
        """Return mean and standard deviation (n in the denominator)."""
        std = (self.squares / self.count) ** 0.5
        if std <= ROUNDING * abs(self.mean):
            raise ConfigError(
                f"Every {what} of the member {detector.method.config.name} is {self.mean:.4g} on validate normals: it "
                "carries no information and cannot be z-scored. Leave it out."
            )
        return Moments(mean=self.mean, std=std)
