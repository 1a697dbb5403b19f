"""The ratio of scoring to a bare forward pass: measured, and what it counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from pipeline.detection.detector import Detector
from pipeline.errors import ConfigError
from pipeline.methods.base import Method
from pipeline.stages.speed.scoring_ratio import scoring_ratio


def test_a_ratio_is_measured(detector: Detector) -> None:
    found = scoring_ratio(detector, images=16, batch_size=8, repeats=1)
    assert found.bare > 0
    assert found.scored > 0
    assert found.ratio == pytest.approx(found.scored / found.bare)
    assert (found.batch_size, found.image_size, found.native_shape) == (8, 32, None)
    slower = scoring_ratio(detector, images=16, batch_size=8, repeats=3, native_shape=(1024, 1024))
    assert slower.ratio < found.ratio


def test_only_reconstructors_have_a_bare_pass(detector: Detector) -> None:
    class Scorer(Method):
        def score(self, x: torch.Tensor, rng: object) -> torch.Tensor:
            return x.flatten(1).mean(1)

    with pytest.raises(ConfigError, match="does not reconstruct"):
        scoring_ratio(replace(detector, method=Scorer(detector.method.config, 32, 1, 2)))


@pytest.mark.slow
@pytest.mark.parametrize("residual", [{"kind": "l1", "median": 5}, {"kind": "l2"}, {"kind": "ssim"}])
def test_scoring_costs_little_at_a_real_size(build: Callable[..., Detector], residual: dict[str, Any]) -> None:
    from pipeline.data.images.normalise import Normaliser, normaliser_config
    from pipeline.methods import method_config

    normaliser = Normaliser(normaliser_config({"kind": "ct_window", "image_size": 64}))
    small = build(residual=residual)
    detector = replace(small, method=method_config({"name": "ae"}).build(64), normaliser=normaliser)
    assert scoring_ratio(detector, images=256, repeats=7).ratio > 0.75  # the aim is 0.8; others share the machine
