"""Gate before every detector: it refuses images that are unlike all that a route's model learned from.

Another body part or modality, a wrong window, a corrupt or attacked image: a detector has an answer to each, and it
means nothing. The gate measures how far an image lies from the training images, in features of a frozen network
(EfficientNet-lite0, ImageNet; the mean of every channel of several stages). `gaussian` is the Mahalanobis distance (Lee
et al., arXiv:1807.03888, equation 2, for one class) with the covariance shrunk as in Ledoit and Wolf (2004);
`neighbours` is the mean distance to the nearest training images (Sun et al., arXiv:2204.06507). The threshold is
conformal: of held-out normals, one per patient, at most the stated share is refused (`pipeline.detection.conformal`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.config import Config
from pipeline.detection.conformal import Calibration, Threshold, Unit
from pipeline.errors import ArtefactError, ConfigError, EmptySelection
from pipeline.methods.base import check_finite
from pipeline.nn.backbone import Backbone, BackboneConfig
from pipeline.nn.backbones import LITE0_SHA256
from pipeline.sealed_folder import WEIGHTS, read_sealed, seal

MULTIPLE, SMALLEST = 32, 64  # pixels: images are enlarged to at least this, for the deepest stage
AT_ONCE = 50
LEAST = 10  # training images


class GateConfig(Config):
    """What the gate measures, and how many normal images it may refuse."""

    density: Literal["gaussian", "neighbours"] = Field("gaussian", description="distance to the training images")
    depths: tuple[int, ...] = Field((1, 2, 3, 4, 5), min_length=1, description="stages of the frozen network, 1 to 5")
    neighbours: int = Field(5, ge=1, description="neighbours: how many of the nearest training images count")
    false_rejection: float = Field(0.05, gt=0, lt=1, description="largest expected share of normal images refused")


@dataclass(frozen=True)
class DomainGate:
    """A fitted gate, immutable.

    Attributes:
        config: what it measures.
        route: whose images it lets through.
        images: JSON of the normaliser that made the training images.
        size: edge of the images in pixels.
        weights: `mean` and `scale` of the features; `white` [F, F], or `bank` [N, F].
        calibration: the scores of held-out normals; None before `calibrated`.
        sha256: of the sealed folder; "" for a gate that was not saved.
    """

    config: GateConfig
    route: str
    images: dict[str, Any]
    size: int
    weights: dict[str, Tensor] = field(repr=False)
    calibration: Calibration | None = None
    sha256: str = ""

    @cached_property
    def threshold(self) -> Threshold:
        """The threshold: a score above it is refused.

        Raises:
            ArtefactError: the gate is not calibrated.
            TooFewNormals: too few normals for the share that may be refused.
        """
        if self.calibration is None:
            raise ArtefactError(
                "This gate is not calibrated, so it has no threshold. Calibrate it on held-out normals."
            )
        return self.calibration.threshold(self.config.false_rejection)

    def score(self, x: Tensor) -> np.ndarray:
        """Return how far images lie from the training images: float64 [N], higher = stranger; no randomness.

        Args:
            x: [N, C, S, S] in about [-1, 1], made by the gate's normaliser.

        Raises:
            ConfigError: another size than that of the training images.
            Rejected: NaN or infinity (code non-finite-pixels).
        """
        features = (self._features(x) - self.weights["mean"]) / self.weights["scale"]
        if self.config.density == "gaussian":
            return (features.double() @ self.weights["white"].double()).norm(dim=1).numpy()
        near = torch.cdist(features, self.weights["bank"]).topk(self._count, largest=False).values
        return near.mean(dim=1).double().numpy()

    def refuses(self, x: Tensor) -> np.ndarray:
        """Return whether each image is refused, bool [N]; see `score` and `threshold` for errors."""
        return self.score(x) > self.threshold.value

    def calibrated(self, units: Iterable[Unit]) -> DomainGate:
        """Return the same gate with the scores of held-out normals, one per patient.

        Raises:
            TooFewNormals: there are no units.
        """
        calibration = Calibration.fit(units)
        return DomainGate(self.config, self.route, self.images, self.size, self.weights, calibration)

    @property
    def _count(self) -> int:
        return min(self.config.neighbours, len(self.weights["bank"]))

    def _features(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[-1] != self.size or x.shape[-2] != self.size:
            raise ConfigError(
                f"This gate of {self.route} expects images [N, C, {self.size}, {self.size}] and got {list(x.shape)}. "
                "Normalise them as its route does, or fit a gate for this size."
            )
        features = describe(x, self.config.depths)
        if features.shape[1] != len(self.weights["mean"]):
            raise ConfigError(
                f"Images of {x.shape[1]} channels have {features.shape[1]} features, and this gate of {self.route} has "
                f"{len(self.weights['mean'])}. Give images with as many channels as it was fitted on."
            )
        return features


def describe(x: Tensor, depths: Sequence[int]) -> Tensor:
    """Return the features of images [N, C, S, S]: the mean of each channel of the stages, float32 [N, F]."""
    check_finite(x)
    edge = max(SMALLEST, -(-x.shape[-1] // MULTIPLE) * MULTIPLE)
    network = _backbone(tuple(depths), edge)
    with torch.no_grad():
        parts = [
            torch.cat([maps.mean(dim=(2, 3)) for maps in network(part.float())], dim=1) for part in x.split(AT_ONCE)
        ]
    return torch.cat(parts)


def fit_gate(
    x: Tensor, config: GateConfig | None = None, *, route: str = "", images: dict[str, Any] | None = None
) -> DomainGate:
    """Return a gate that knows the training images, not calibrated yet.

    Args:
        x: training normals of the route, [N, C, S, S].
        config: what it measures.
        route, images: of the artefact: the route, and JSON of the normaliser.

    Raises:
        EmptySelection: fewer than 10 images.
        Rejected: NaN or infinity.
    """
    config = config or GateConfig()
    if len(x) < LEAST:
        raise EmptySelection(
            f"A gate needs at least {LEAST} training images, and there are {len(x)}. Add normal scans."
        )
    features = describe(x, config.depths)
    mean, scale = features.mean(dim=0), features.std(dim=0).clamp_min(1e-6)
    standard = (features - mean) / scale
    weights = {"mean": mean, "scale": scale}
    weights |= {"white": _whitening(standard)} if config.density == "gaussian" else {"bank": standard}
    return DomainGate(config, route, dict(images or {}), int(x.shape[-1]), weights)


def save_gate(folder: Path, gate: DomainGate) -> str:
    """Write a calibrated gate into a sealed folder; return its SHA-256.

    Raises:
        ArtefactError: the gate is not calibrated.
        TooFewNormals: too few normals for the share that may be refused.
    """
    threshold = gate.threshold
    spec = {
        "gate": gate.config.model_dump(mode="json"),
        "route": gate.route,
        "images": gate.images,
        "size": gate.size,
        "backbone_sha256": LITE0_SHA256,
        "threshold": threshold.value,
        "calibration": None if gate.calibration is None else gate.calibration.model_dump(mode="json"),
    }
    weights = {name: value.contiguous() for name, value in gate.weights.items()}
    return seal(folder, spec, lambda part: save_file(weights, part))


def load_gate(folder: Path, sha256: str | None = None) -> DomainGate:
    """Read a gate, after a check of its every byte.

    Raises:
        ArtefactError: a file is missing, altered or damaged, it is not a gate, or it was fitted on another network.
    """
    sealed = read_sealed(folder, sha256)
    try:
        config = GateConfig.model_validate(sealed.spec["gate"])
        calibration = Calibration.model_validate(sealed.spec["calibration"])
        route, images = str(sealed.spec["route"]), dict(sealed.spec["images"])
        size, backbone = int(sealed.spec["size"]), sealed.spec["backbone_sha256"]
    except (KeyError, TypeError, ValueError, ValidationError):
        raise ArtefactError(f"{folder} contains an artefact that is not a gate. Fit the gate again.") from None
    if backbone != LITE0_SHA256:
        raise ArtefactError(f"This gate of {route} was fitted on another frozen network. Fit it again.")
    return DomainGate(config, route, images, size, load_file(folder / WEIGHTS), calibration, sealed.sha256)


def _whitening(features: Tensor) -> Tensor:
    """Return W with |x W| the Mahalanobis distance from 0, of features [N, F] of mean 0."""
    from sklearn.covariance import LedoitWolf

    precision = LedoitWolf(assume_centered=True).fit(features.double().numpy()).precision_
    return torch.from_numpy(np.linalg.cholesky(precision)).float()


_BUILT: dict[tuple[tuple[int, ...], int], Backbone] = {}


def _backbone(depths: tuple[int, ...], edge: int) -> Backbone:
    """Return the frozen network, built once per process."""
    if (depths, edge) not in _BUILT:
        _BUILT[depths, edge] = Backbone(BackboneConfig(depths=depths, input_size=edge))
    return _BUILT[depths, edge]
