"""Every method trains, is saved, and scores on a CUDA device as on the CPU, in both precisions.

The same test runs on the CPU, where it has to pass; what is marked `gpu` is skipped where there is no CUDA device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from pipeline.data.images.normalise import Normaliser, parse_normaliser
from pipeline.detection.config import DetectionConfig
from pipeline.detection.detector import Detector
from pipeline.detection.stored_detector import load_detector, save_detector
from pipeline.methods.base import MethodConfig
from pipeline.methods.method_registry import build_method
from pipeline.methods.stored_model import Model
from pipeline.training import TrainingConfig, fit
from pipeline.training.state import get_accelerator
from pipeline.types import Batch


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The device that `auto` is to find. Accelerate settles on one for a process, and has to forget it."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    if request.param == "cpu":
        yield "cpu"
        return
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # otherwise convolutions keep ten bits
    _forget()
    yield "cuda"
    _forget()


def _forget() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    get_accelerator.cache_clear()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_trains_and_scores_on_the_given_device(
    config: MethodConfig, batch: Batch, as_data: Callable[[Batch], Any], device: str, precision: str, tmp_path: Path
) -> None:
    place = "cpu" if device == "cpu" else "auto"
    # four steps: those whose phases follow each other do two of each
    training = TrainingConfig(images=16, batch_size=4, validate_every_images=8, device=place, precision=precision)
    method = fit(build_method(config, 32), as_data(batch), as_data(batch), training, tmp_path / "training").method
    assert {value.device.type for value in method.state_dict().values()} == {
        "cpu"
    }  # saved weights do not belong to a device
    normaliser = Normaliser(parse_normaliser({"kind": "ct_window", "image_size": 32}))
    scores = {}
    for where in ("cpu", place):
        detection = DetectionConfig.model_validate(
            {"device": where, "precision": precision, "residual": {"kind": "l1", "median": 3, "erode": 1}}
        )
        save_detector(tmp_path / where, Detector(Model(method, normaliser), detection, "ct"))
        detector = load_detector(tmp_path / where)
        assert detector.device.type == ("cpu" if where == "cpu" else device)
        results = list(detector.score_slices(as_data(batch)))
        assert all(result.values is None or result.values.shape == (32, 32) for result in results)
        scores[where] = torch.tensor([result.score for result in results])
    assert torch.isfinite(scores[place]).all()
    assert scores[place].tolist() == pytest.approx(scores["cpu"].tolist(), rel=0.02 if precision == "fp32" else 0.2)


def test_the_device_survives_json() -> None:
    assert DetectionConfig().model_dump(mode="json")["device"] == "cpu"
    assert DetectionConfig.model_validate(DetectionConfig(device="auto").model_dump(mode="json")).device == "auto"
