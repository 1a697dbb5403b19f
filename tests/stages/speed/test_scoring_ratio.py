"""The ratio of scoring to a bare forward pass: measured, and what it counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from pipeline.data.images.normalise import Normaliser, parse_normaliser
from pipeline.detection.config import DetectionConfig
from pipeline.detection.detector import Detector
from pipeline.errors import ConfigError
from pipeline.methods import parse_method
from pipeline.methods.base import Method
from pipeline.methods.stored_model import Model
from pipeline.stages.speed.scoring_ratio import measure_scoring_ratio


def autoencoder(image_size: int, detection: dict[str, Any], **method: Any) -> Detector:
    """An untrained autoencoder that is not calibrated."""
    config = parse_method({"name": "ae", **method})
    normaliser = Normaliser(parse_normaliser({"kind": "ct_window", "image_size": image_size}))
    return Detector(Model(config.build(image_size), normaliser), DetectionConfig.model_validate(detection), "ct")


@pytest.fixture
def detector() -> Detector:
    """A tiny autoencoder at 32 px."""
    return autoencoder(32, {}, widths=(8, 8), hidden=32)


def test_a_ratio_is_measured(detector: Detector) -> None:
    measured = measure_scoring_ratio(detector, images=16, batch_size=8, repeats=1)  # of several, each is a median
    assert measured.bare > 0
    assert measured.scored > 0
    assert measured.ratio == pytest.approx(measured.scored / measured.bare)
    assert (measured.batch_size, measured.image_size, measured.native_shape) == (8, 32, None)
    slower = measure_scoring_ratio(detector, images=16, batch_size=8, repeats=1, native_shape=(1024, 1024))
    assert slower.ratio < measured.ratio


def test_only_reconstructors_have_a_bare_pass(detector: Detector) -> None:
    class Scorer(Method):
        def score(self, x: torch.Tensor, rng: object) -> torch.Tensor:
            return x.flatten(1).mean(1)

    with pytest.raises(ConfigError, match="reconstruct"):
        model = replace(detector.model, method=Scorer(detector.method.config, 32, 1, 2))
        measure_scoring_ratio(replace(detector, model=model))


@pytest.mark.slow
@pytest.mark.parametrize("residual", [{"kind": "l1", "median": 5}, {"kind": "l2"}, {"kind": "ssim"}])
def test_scoring_costs_little_at_a_real_size(residual: dict[str, Any]) -> None:
    detector = autoencoder(64, {"residual": residual})
    # The aim is 0.8, which `nightread benchmark speed` measures; others share this machine.
    assert max(measure_scoring_ratio(detector, images=128, repeats=3).ratio for _ in range(2)) > 0.5
