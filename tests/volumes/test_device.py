"""Volumes on a CUDA device and in bf16: the cubes are computed there, the scores are those of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.data.images.dataset import SliceDataset
from pipeline.detection.detector import Detector
from pipeline.detection.stored_detector import load_detector, save_detector
from pipeline.types import SliceRef


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["ae", "synthetic_lesion", "ddpm"])
def test_a_series_scores_on_the_given_device(
    build: Callable[..., Detector],
    volume: Callable[..., list[SliceRef]],
    slices: Callable[..., SliceDataset],
    tmp_path: Path,
    method: str,
    precision: str,
    device: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    plain = build(method, residual={"kind": "l1", "median": 3, "erode": 1})
    update = {"precision": precision, "device": "cpu" if device == "cpu" else "auto"}
    save_detector(tmp_path / "there", replace(plain, config=plain.config.model_copy(update=update)))
    there, data = load_detector(tmp_path / "there"), slices(volume())
    assert there.device.type == device
    expected, actual = ([item.score for item in one.score_slices(data)] for one in (plain, there))
    assert actual == pytest.approx(expected, rel=0.02 if precision == "fp32" else 0.2, nan_ok=True)
    if device == "cpu":  # otherwise an ignored precision would pass
        assert (actual == pytest.approx(expected, rel=1e-7, nan_ok=True)) == (precision == "fp32")
