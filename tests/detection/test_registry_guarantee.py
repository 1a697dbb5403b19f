"""The guarantee for every method of the registry: 900 independent phantom people, one test over all cells.

Each method is trained for seconds: the guarantee does not ask how good a model is. Calibrated on people that it has not
seen, false alarms among fresh ones follow the beta-binomial at 1, 5 and 10 %, Holm over every method and level at 1 %.
A threshold at three times the level, the negative control, is refuted for every method by the same test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.detection.config import DetectionConfig
from pipeline.detection.detector import Detector
from pipeline.detection.ensemble import Ensemble, z_score_members
from pipeline.detection.scorer import Scorer
from pipeline.detection.slices import slice_batches
from pipeline.detection.two_sided import TwoSided
from pipeline.methods import METHODS, build_method
from pipeline.methods.stored_model import Model
from pipeline.training import TrainingConfig, fit
from pipeline.types import RunRef

TRAIN, VALIDATE, CALIBRATE, FRESH = range(100), range(500, 600), range(1000, 1400), range(5000, 5500)
# Answers of methods that score by other means than their defaults.
ANSWERS: dict[str, dict[str, Any]] = {
    "ddpm, z-scored": {"name": "ddpm", "combine": "residual"},
    "vae, restored": {"name": "vae", "restoration": {"steps": 5}},
    "vq_vae2, likelihood": {"name": "vq_vae2", "answer": "likelihood"},
}
JOINED = ("ae", "ae_u")  # members of the ensemble


def trained(asked: dict[str, Any], phantoms: Any, people: dict[str, Any], folder: Path) -> Detector:
    """Return a detector after 20 steps: at least some of each phase."""
    config = METHODS[asked["name"]].model_validate(asked)
    training = TrainingConfig(images=320, batch_size=16, validate_every_images=160, validate_images=32)
    method = fit(build_method(config, 32), people["train"], people["validate"], training, folder).method
    return Detector(Model(method, phantoms.normaliser), DetectionConfig(), "ct")


def detectors(
    phantoms: Any, people: dict[str, Any], small: dict[str, Any], folder: Path
) -> Iterator[tuple[str, Scorer]]:
    by_name: dict[str, Detector] = {}
    for name, answer in ({name: {} for name in METHODS} | ANSWERS).items():
        asked = {"name": name} | small.get(answer.get("name", name), {}) | answer
        detector = trained(asked, phantoms, people, folder / name)
        by_name |= {name: detector} if name in JOINED else {}
        yield name, detector
    yield "ae, two-sided", centred(by_name["ae"], people["validate"])
    slices = ((batch, list(range(len(batch.ids)))) for batch in slice_batches(people["validate"], 64))
    members = z_score_members([(by_name[name], RunRef(name, "")) for name in JOINED], slices)
    yield "ensemble", Ensemble(members, DetectionConfig(), "ct")


def centred(detector: Detector, validate: Any) -> Detector:
    scores = [result.score for result in detector.score_slices(validate)]
    constants = TwoSided.fit(scores, map(str, range(len(scores))))
    return replace(detector, config=DetectionConfig(transform="two_sided")).centred(constants)


@pytest.mark.slow
def test_false_alarms_of_every_method_follow_the_beta_binomial(
    phantoms: Any, small: dict[str, Any], false_alarms: Callable, is_refuted: Callable, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    people = {"train": phantoms(TRAIN), "validate": phantoms(VALIDATE)}
    calibrate, fresh = phantoms(CALIBRATE), phantoms(FRESH)
    cells, broken = {}, {}
    for name, detector in detectors(phantoms, people, small, tmp_path):
        calibration = phantoms.calibrated(detector, calibrate)
        scores = np.array([finding.score for finding in phantoms.findings(detector, fresh)])
        assert (calibration.n, calibration.guarantee, len(scores)) == (400, "conformal", 500)
        value = {alpha: calibration.threshold(alpha).value for alpha in (0.01, 0.03, 0.05, 0.1, 0.15, 0.3)}
        cells[name] = false_alarms(value.__getitem__, calibration.n, scores)
        broken[name] = false_alarms(lambda alpha, v=value: v[round(3 * alpha, 2)], calibration.n, scores)
    assert not is_refuted([p for p_values in cells.values() for p in p_values.values()]), cells
    assert len(cells) == len(METHODS) + len(ANSWERS) + 2
    for name, p_values in broken.items():
        assert is_refuted([*p_values.values()] * len(cells)), name
