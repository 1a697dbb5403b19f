"""The guarantee on phantom patients, through normaliser, detector and calibration: 4 500 independent people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from pipeline.detection.config import DetectionConfig
from pipeline.detection.detector import Detector
from pipeline.methods.base import Method, MethodConfig
from pipeline.methods.stored_model import Model
from pipeline.nn.rng import Rng

TRAIN, CALIBRATE, FRESH = range(300), range(1000, 2500), range(5000, 7700)
SIZE = 32


class _Config(MethodConfig):
    name: str = "pca"


class PcaMethod(Method):
    """Projects on principal components: the cheapest model of normality that reconstructs."""

    def __init__(self, images: np.ndarray, components: int) -> None:
        super().__init__(_Config(), SIZE, 1, 2)
        pca = PCA(components, random_state=0).fit(images.reshape(len(images), -1))
        self.register_buffer("mean", torch.from_numpy(pca.mean_.astype(np.float32)))
        self.register_buffer("axes", torch.from_numpy(np.ascontiguousarray(pca.components_, dtype=np.float32)))

    def reconstruct(self, x: torch.Tensor, rng: Rng, body: torch.Tensor | None = None) -> torch.Tensor:
        shift = x.flatten(1) - self.mean
        return (self.mean + shift @ self.axes.T @ self.axes).view_as(x)


@pytest.mark.slow
@pytest.mark.parametrize("residual", ["l2", "ssim"])
def test_phantom_patients_follow_the_beta_binomial(
    residual: str, phantoms: Any, false_alarms: Callable, is_refuted: Callable
) -> None:
    train, calibrate, fresh = (phantoms(seeds) for seeds in (TRAIN, CALIBRATE, FRESH))
    images = np.stack([item["image"] for item in train])
    config = DetectionConfig.model_validate({"residual": {"kind": residual}})
    detector = Detector(Model(PcaMethod(images, 150), phantoms.normaliser), config, "ct")
    scores = np.array([finding.score for finding in phantoms.findings(detector, fresh)])

    honest = phantoms.calibrated(detector, calibrate)
    sound = false_alarms(lambda a: honest.threshold(a).value, honest.n, scores)
    assert (honest.n, honest.guarantee, len(scores)) == (1500, "conformal", 2700)
    assert not is_refuted([*sound.values()] * 2)  # two residuals x three levels

    wrong = false_alarms(lambda a: honest.threshold(2 * a).value, honest.n, scores)
    leaked = phantoms.calibrated(detector, train)
    seen = false_alarms(lambda a: leaked.threshold(a).value, leaked.n, scores)
    for broken in (wrong, seen):
        assert is_refuted([*broken.values()] * 2)
