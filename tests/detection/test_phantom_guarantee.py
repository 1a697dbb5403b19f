"""The guarantee on phantom patients, through normaliser, detector and calibration: 4 500 independent people."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from pipeline.data.normalise import Normaliser, Plane, normaliser_config
from pipeline.detection.calibrate import Calibration, Unit
from pipeline.detection.config import DetectionConfig
from pipeline.detection.detector import Detector
from pipeline.dicom.phantom.patient import make_patient
from pipeline.methods.base import Method, MethodConfig
from pipeline.nn.rng import Rng
from pipeline.types import SliceScore

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


class Patients:
    """One normalised slice a patient."""

    def __init__(self, seeds: Iterable[int], normaliser: Normaliser) -> None:
        patients = [make_patient(seed, "CT", size=48) for seed in seeds]
        self.items = [normaliser.series([Plane(p.physical[0])])[0] for p in patients]
        self.ids = [f"patient{p.seed}" for p in patients]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": self.items[i].image, "body": self.items[i].body, "id": self.ids[i]}


def calibrated(detector: Detector, data: Patients) -> Calibration:
    return Calibration.fit(Unit(f.study_id, f.patient_id, f.score) for f in findings(detector, data))


def findings(detector: Detector, data: Patients) -> list[Any]:
    results = detector.score_slices(data, 128)
    return [detector.finding([SliceScore(r.id, 0, r.id, f"study of {r.id}", r.id, r.score)]) for r in results]


@pytest.mark.slow
@pytest.mark.parametrize("residual", ["l2", "ssim"])
def test_phantom_patients_follow_the_beta_binomial(residual: str, false_alarms: Callable, is_refuted: Callable) -> None:
    normaliser = Normaliser(normaliser_config({"kind": "ct_window", "image_size": SIZE}))
    train, calibrate, fresh = (Patients(seeds, normaliser) for seeds in (TRAIN, CALIBRATE, FRESH))
    images = np.stack([item.image for item in train.items])
    config = DetectionConfig.model_validate({"residual": {"kind": residual}})
    detector = Detector.of(PcaMethod(images, 150), normaliser, config, "ct")
    scores = np.array([finding.score for finding in findings(detector, fresh)])

    honest = calibrated(detector, calibrate)
    sound = false_alarms(lambda a: honest.threshold(a).value, honest.n, scores)
    assert (honest.n, honest.guarantee, len(scores)) == (1500, "conformal", 2700)
    assert not is_refuted([*sound.values()] * 2)  # two residuals x three levels

    wrong = false_alarms(lambda a: honest.threshold(2 * a).value, honest.n, scores)
    leaked = calibrated(detector, train)
    seen = false_alarms(lambda a: leaked.threshold(a).value, leaked.n, scores)
    for broken in (wrong, seen):
        assert is_refuted([*broken.values()] * 2)
