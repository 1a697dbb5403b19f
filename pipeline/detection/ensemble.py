"""An ensemble: several detectors of one route, each z-scored on validate normals, and the mean of them.

It shares with a single detector what lies behind the raw slice score (`Scorer`), so that calibration, findings, files
and stages know no difference; and the artefact's three files, with the members' weights side by side, so that hashes,
registry and served model know none either. The members are *held*, not referenced: an artefact that is copied elsewhere
scores there, and a member that is trained again changes no ensemble.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from pipeline.config import Config
from pipeline.data.images.normalise import Normaliser
from pipeline.data.images.volume import VolumeConfig
from pipeline.detection.artefact import read_sealed, read_weights, require, write_artefact
from pipeline.detection.config import DetectionConfig
from pipeline.detection.conformal import Calibration
from pipeline.detection.detector import Detector
from pipeline.detection.residual import counted_body
from pipeline.detection.scorer import Scorer, shared_fields
from pipeline.detection.slices import Scored
from pipeline.detection.two_sided import TwoSided
from pipeline.errors import ArtefactError, ConfigError, TooFewNormals
from pipeline.methods.artefact import method_from_spec
from pipeline.methods.base import Method
from pipeline.types import Batch, RunRef

KIND = "ensemble"
ROUNDING = 1e-6  # a spread below this share of the mean is float32's rounding
LEAST = 10  # validate slices with a score, of which mean and standard deviation are taken
FIELDS = ("members", "normaliser", "detection", "route", "seed", "calibration", "two_sided")


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
        detector: as its run calibrated it; its own calibration is not used.
        origin: the run folder's name, and the SHA-256 of the detector that was taken.
        score, map: what its scores and its maps' pixels look like on validate normals; no map where it has none.
    """

    detector: Detector
    origin: RunRef
    score: Moments
    map: Moments | None


@dataclass(frozen=True, slots=True)
class Ensemble(Scorer):
    """Scores with the mean of its members' z-scores; see `Scorer` for what it shares with a single detector.

    The map is the mean of the z-scored maps of those members that have one; there is no reconstruction.
    """

    members: tuple[Member, ...]
    normaliser: Normaliser
    config: DetectionConfig
    route: str
    seed: int = 0
    calibration: Calibration | None = None
    two_sided: TwoSided | None = None
    volumes: VolumeConfig | None = None

    def __post_init__(self) -> None:
        refuse_strangers([member.detector for member in self.members], self.normaliser, self.route, self.volumes)

    @property
    def methods(self) -> tuple[Method, ...]:
        """The members' models."""
        return tuple(member.detector.method for member in self.members)

    @property
    def whole(self) -> bool:
        """Whether any member needs whole series."""
        return any(member.detector.whole for member in self.members)

    @property
    def has_maps(self) -> bool:
        """Whether any member has a map."""
        return any(member.map is not None for member in self.members)

    def raw_batch(self, batch: Batch) -> Scored:
        """Return the mean z-score of each slice, NaN where a member has none, and the mean z-map."""
        scored = [(member, member.detector.score_batch(batch)) for member in self.members]
        scores = torch.stack([member.score.z(found.scores) for member, found in scored]).mean(dim=0)
        maps = [
            member.map.z(found.maps) for member, found in scored if member.map is not None and found.maps is not None
        ]
        inside = batch.body.to(self.device)
        mean = torch.stack(maps).mean(dim=0).masked_fill(~inside, 0.0) if maps else None
        return Scored(scores, mean, None)

    @property
    def spec(self) -> dict[str, Any]:
        """JSON of everything but the weights."""
        return {
            "kind": KIND,
            "members": [_member_spec(member) for member in self.members],
            **self.shared_spec,
        }

    def save(self, folder: str | Path) -> RunRef:
        """Write weights.safetensors, detector.json and manifest.json; the reference holds the manifest's SHA-256."""
        return write_artefact(Path(folder), self.spec, nn.ModuleList(self.methods))

    @classmethod
    def load(cls, folder: str | Path, sha256: str | None = None) -> Self:
        """Read an ensemble with all its members; see `Detector.load`.

        Raises:
            ArtefactError: a file or a member is missing, altered, of another version, or not the registered one.
        """
        return cls.opened(read_sealed(Path(folder), sha256), Path(folder))

    @classmethod
    def opened(cls, spec: dict[str, Any], folder: Path) -> Self:
        """Return the ensemble of a folder that `read_sealed` checked and gave `spec` of (ArtefactError on a misfit)."""
        require(spec, FIELDS)
        try:
            methods = nn.ModuleList([method_from_spec(item["detector"]["method"]) for item in spec["members"]])
            read_weights(methods, folder, "the ensemble's weights")
            members = [_member(item, method.eval()) for item, method in zip(spec["members"], methods, strict=True)]
            return cls(members=tuple(members), **shared_fields(spec))
        except (ValidationError, KeyError, TypeError, ValueError) as error:
            raise ArtefactError(
                f"The ensemble's specification does not fit this release ({type(error).__name__}). Assemble it again."
            ) from None


def refuse_strangers(
    detectors: Sequence[Detector], normaliser: Normaliser, route: str, volumes: VolumeConfig | None = None
) -> None:
    """Refuse members that do not belong together (ConfigError): fewer than two, other routes, other images."""
    if len(detectors) < 2:
        raise ConfigError(f"An ensemble of {len(detectors)} member(s) was asked for; two or more are needed.")
    if strangers := sorted({detector.route for detector in detectors} - {route}):
        raise ConfigError(f"Members of {', '.join(strangers)} cannot score scans of {route}. Name runs of one route.")
    for detector in detectors:
        if detector.normaliser.to_json() != normaliser.to_json() or detector.volumes != volumes:
            raise ConfigError(
                f"The member {detector.method.config.name} was trained on other images (size, range, body mask or "
                "volumes) than the ensemble's are. Name members that share one `data.normaliser` and `data.volumes`."
            )


def z_scored(
    found: Sequence[tuple[Detector, RunRef]], batches: Iterable[tuple[Batch, Sequence[int]]]
) -> tuple[Member, ...]:
    """Return the members with the moments of their scores and maps on validate normals, one pass for all.

    Args:
        found: detectors, and where they come from.
        batches: slices, or whole series, and which of their rows are such normals.

    Raises:
        TooFewNormals: fewer than `LEAST` slices have a score.
        ConfigError: a member gives every slice, or every pixel, the same value.
    """
    scores = [_Sums() for _ in found]
    maps = [_Sums() for _ in found]
    for batch, rows in batches:
        for (detector, _), score, pixels in zip(found, scores, maps, strict=True):
            scored = detector.score_batch(batch)
            wanted = scored.scores[rows]
            score.add(wanted[torch.isfinite(wanted)])
            if scored.maps is not None:
                body = batch.body[rows].to(scored.maps.device)
                pixels.add(scored.maps[rows][counted_body(body, detector.residual)])
    if (least := min(score.count for score in scores)) < LEAST:
        raise TooFewNormals(least, LEAST, "An ensemble's z-scores (slices of the validate set)")
    return tuple(
        Member(
            detector, origin, score.moments(detector, "score"), pixel.moments(detector, "map") if pixel.count else None
        )
        for (detector, origin), score, pixel in zip(found, scores, maps, strict=True)
    )


class _Sums:
    """Count, mean and summed squares of a stream (Chan, Golub and LeVeque 1983, equation 2.1), in float64."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, values: Tensor) -> None:
        """Take values of any shape."""
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
                "says nothing and cannot be z-scored. Leave it out."
            )
        return Moments(mean=self.mean, std=std)


def _member_spec(member: Member) -> dict[str, Any]:
    return {
        "run": member.origin.path,
        "sha256": member.origin.sha256,
        "score": member.score.model_dump(mode="json"),
        "map": None if member.map is None else member.map.model_dump(mode="json"),
        "detector": member.detector.spec,
    }


def _member(item: dict[str, Any], method: Method) -> Member:
    return Member(
        detector=Detector.from_spec(item["detector"], method),
        origin=RunRef(str(item["run"]), str(item["sha256"])),
        score=Moments.model_validate(item["score"]),
        map=None if item["map"] is None else Moments.model_validate(item["map"]),
    )
