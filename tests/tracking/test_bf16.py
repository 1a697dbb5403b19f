"""A detector in bf16 gives the same scores in this process and served by MLflow, within the stated tolerance."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import torch

from pipeline.data.images.intensity import MRPercentile
from pipeline.data.images.normalise import Normaliser
from pipeline.detection.config import DetectionConfig
from pipeline.detection.conformal import Calibration, Unit
from pipeline.detection.detector import Detector
from pipeline.detection.score_files import score_file
from pipeline.detection.stored_detector import save_detector
from pipeline.methods.base import MethodConfig
from pipeline.methods.dae import DaeConfig
from pipeline.methods.stored_model import Model
from pipeline.tracking import served_model
from pipeline.tracking.served_model import BF16_TOLERANCE


def detector_of(config: MethodConfig, precision: str) -> Detector:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = config.build(32)
    detection = DetectionConfig.model_validate({"precision": precision, "residual": {"kind": "l1"}})
    detector = Detector(Model(method, Normaliser(MRPercentile(image_size=32))), detection, "bf16")
    return detector.calibrated(Calibration.fit(Unit(f"{i}", f"{i}", i * 1e-3) for i in range(100)))


def test_served_scores_agree(phantom_night: Any, tmp_path: Path) -> None:
    config = DaeConfig()
    files = sorted(phantom_night.inbox.rglob("*.dcm"))
    detector = detector_of(config, "bf16")
    expected = [score_file(detector, file).score for file in files]
    sha256 = save_detector(tmp_path / "detector", detector)
    mlflow.pyfunc.save_model(
        tmp_path / "model", python_model=served_model.__file__, artifacts={"detector": str(tmp_path / "detector")},
        model_config={"sha256": sha256}, pip_requirements=[],
    )  # fmt: skip
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)  # a server's sums are in another order
    try:
        answer = model.predict(pd.DataFrame({"dicom": [base64.b64encode(f.read_bytes()).decode() for f in files]}))
    finally:
        torch.set_num_threads(threads)
    assert answer["error"].tolist() == [""] * len(files)
    assert answer["score"].tolist() == pytest.approx(expected, rel=BF16_TOLERANCE)
    full = [score_file(detector_of(config, "fp32"), file).score for file in files]
    assert full != expected  # it was computed in bf16
    assert full == pytest.approx(expected, rel=BF16_TOLERANCE)
