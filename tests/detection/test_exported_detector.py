"""Exports of detectors outside a run: ensembles, and what cannot be exported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.detection.detector import Detector
from pipeline.detection.ensemble import Ensemble, Member, Moments
from pipeline.detection.exported_detector import write_export
from pipeline.detection.stored_detector import load_detector, save_detector
from pipeline.errors import ConfigError
from pipeline.types import Batch, RunRef

pytest.importorskip("onnx", reason="the extra `export` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
Build = Callable[..., Detector]


def test_an_ensemble_is_exported_with_each_distinct_model_once(build: Build, batch: Batch, tmp_path: Path) -> None:
    first, second = build(residual={"kind": "l1"}), build(residual={"kind": "ssim"})
    second = replace(second, model=replace(second.model, method=second.method.config.build(32, seed=5)))
    parts = [(first, 1.0), (second, 2.0), (replace(second, config=first.config), 0.5)]
    origin, moments = RunRef("run", "0" * 64), Moments(mean=0.1, std=0.2)
    members = [Member(part, origin, moments, moments, weight) for part, weight in parts]
    whole = Ensemble(tuple(members), first.config, "ct")
    sha256 = save_detector(tmp_path / "detector", whole)
    (tmp_path / "out").mkdir()
    write_export(tmp_path / "detector", tmp_path / "out")
    exported, ours = load_detector(tmp_path / "out", sha256), load_detector(tmp_path / "detector")
    assert len(list((tmp_path / "out").rglob("network.onnx"))) == 2
    before, after = ours.score_batch(batch), exported.score_batch(batch)
    torch.testing.assert_close(after.members, before.members, atol=1e-5, rtol=0)
    torch.testing.assert_close(after.maps, before.maps, atol=1e-5, rtol=0)


def test_a_detector_that_scores_in_bf16_is_refused(build: Build, tmp_path: Path) -> None:
    save_detector(tmp_path, build(precision="bf16"))
    with pytest.raises(ConfigError, match="detection.precision=fp32"):
        write_export(tmp_path, tmp_path)
