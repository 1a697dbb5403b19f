"""The two-sided score: constants of normals only, both sides alike, and a p-value that stays one-sided."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import median_abs_deviation
from sklearn.metrics import roc_auc_score

from pipeline.detection.conformal import Calibration, Unit
from pipeline.detection.detector import Detector
from pipeline.detection.stored_detector import load_detector, save_detector
from pipeline.detection.two_sided import LEAST, TwoSided
from pipeline.errors import ConfigError, TooFewNormals
from pipeline.types import Batch

Build = Callable[..., Detector]


def fitted(scores: Any) -> TwoSided:
    return TwoSided.fit(scores, [f"p{i // 2}" for i in range(len(scores))])


def test_constants_by_hand_and_by_scipy() -> None:
    # 1 .. 11: the median is 6, the distances 5 4 3 2 1 0 1 2 3 4 5 have the median 3.
    assert fitted(list(range(1, 12))) == TwoSided(median=6, mad=3, slices=11, patients=6)
    values = np.random.default_rng(0).normal(size=200) ** 3
    constants = fitted(values)
    assert constants.median == np.median(values)
    assert constants.mad == pytest.approx(median_abs_deviation(values))


def test_both_sides_count_alike_and_nan_stays() -> None:
    constants = TwoSided(median=2.0, mad=0.5, slices=20, patients=20)
    scores = torch.tensor([2.0, 3.0, 1.0, math.nan], dtype=torch.float64)
    torch.testing.assert_close(
        constants.apply(scores), torch.tensor([0, 2, 2, math.nan], dtype=torch.float64), equal_nan=True
    )
    assert np.array_equal(constants.apply_values(scores.numpy()), [0, 2, 2, math.nan], equal_nan=True)


def test_too_few_normals_and_no_spread_are_refused() -> None:
    with pytest.raises(TooFewNormals) as refusal:
        fitted([*range(LEAST - 1), math.nan])  # a slice without a body does not count
    assert (refusal.value.need, refusal.value.have) == (LEAST, LEAST - 1)
    with pytest.raises(ConfigError, match="MAD is 0"):
        fitted([1.0] * 6 + [2.0] * 5)


def test_smooth_lesions_invert_a_plain_score_and_not_a_two_sided_one() -> None:
    rng = np.random.default_rng(1)
    normal, smooth, rough = rng.normal(0, 1, 400), rng.normal(-3, 1, 100), rng.normal(3, 1, 100)
    constants = fitted(rng.normal(0, 1, 300))

    def auroc(values: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> float:
        truth = np.r_[np.zeros(len(normal)), np.ones(len(values))]
        return float(roc_auc_score(truth, change(np.r_[normal, values])))

    assert auroc(smooth, lambda s: s) < 0.05  # reported as it comes out, never flipped
    assert auroc(smooth, constants.apply_values) > 0.9
    assert auroc(rough, constants.apply_values) > 0.9
    shuffled = rng.normal(0, 1, 4000)  # negative control: "lesions" that are normal
    assert abs(auroc(shuffled, constants.apply_values) - 0.5) < 0.04


def test_the_p_value_stays_one_sided_and_valid() -> None:
    rng = np.random.default_rng(2)
    constants = fitted(rng.normal(size=50))
    units = [Unit(str(i), str(i), float(s)) for i, s in enumerate(constants.apply_values(rng.normal(size=999)))]
    calibration = Calibration.fit(units)
    p_values = calibration.p_values(constants.apply_values(rng.normal(size=20_000)))
    assert (p_values <= 0.05).mean() == pytest.approx(0.05, abs=0.02)
    assert calibration.p_value(float(constants.apply_values(np.array([-9.0]))[0])) == 0.001


def test_a_detector_refuses_before_its_constants_and_transforms_after(build: Build, batch: Batch) -> None:
    plain, asked = build(), build(transform="two_sided")
    with pytest.raises(ConfigError, match="two-sided"):
        asked.score_batch(batch)
    raw = asked.raw().score_batch(batch)
    assert torch.equal(raw.scores, plain.score_batch(batch).scores)
    constants = TwoSided(median=float(raw.scores[0]), mad=0.25, slices=20, patients=20)
    scored = asked.centred(constants).score_batch(batch)
    assert torch.equal(scored.scores, (raw.scores - raw.scores[0]).abs() / 0.25)
    assert torch.equal(scored.maps, raw.maps)  # maps say where, and stay as they are
    alone = asked.centred(constants).score_batch(Batch(batch.images[3:4], batch.body[3:4], batch.ids[3:4]))
    assert float(alone.scores[0]) == pytest.approx(float(scored.scores[3]), rel=1e-5)


def test_constants_travel_in_the_artefact(build: Build, batch: Batch, tmp_path: Path) -> None:
    constants = TwoSided(median=0.1 + 0.2, mad=1 / 3, slices=12, patients=7)
    detector = build(transform="two_sided").centred(constants)
    save_detector(tmp_path, detector)
    loaded = load_detector(tmp_path)
    assert loaded.two_sided == constants  # to the last bit
    assert torch.equal(loaded.score_batch(batch).scores, detector.score_batch(batch).scores)
    assert replace(detector, two_sided=None).spec != detector.spec
