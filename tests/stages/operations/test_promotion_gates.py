"""The gates one by one: numbers by hand, and a stated number of patients where there are too few."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import betabinom

from pipeline.detection.conformal import Calibration
from pipeline.stages.operations.promotion_gates import (
    PromotionGates,
    judge_auroc,
    judge_calibration,
    judge_gate_set,
    judge_shadow,
    judge_speed,
    judge_subgroups,
)

GATES = PromotionGates()


def _frame(count: int, loss: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Return `count` patients of either class; the challenger's abnormal scores lie lower by `loss`."""
    rng = np.random.default_rng(seed)
    abnormal = np.repeat([False, True], count)
    champion = rng.normal(size=2 * count) + 2 * abnormal
    return pd.DataFrame(
        {
            "unit_id": [f"u{n}" for n in range(2 * count)],
            "patient_id": [f"p{n}" for n in range(2 * count)],
            "label": np.where(abnormal, "abnormal", "normal"),
            "champion": champion,
            "challenger": champion + 0.1 * rng.normal(size=2 * count) - loss * abnormal,
            "scanner": np.where(np.arange(2 * count) % 2, "A", "B"),
            "site": "local",
            "sex": "",
            "age_band": "",
        }
    )


def test_a_model_as_good_passes_and_a_worse_one_does_not() -> None:
    assert judge_auroc(_frame(200), GATES).passed
    worse = judge_auroc(_frame(200, loss=1.0), GATES)
    assert not worse.passed and "patients are few" not in worse.sentence


def test_few_patients_are_told_how_many_would_do() -> None:
    frame = _frame(12)
    frame["challenger"] = frame["champion"] + np.random.default_rng(1).normal(size=24)
    line = judge_auroc(frame, GATES)
    assert not line.passed
    needed = int(line.sentence.split("about ")[1].split(" ")[0])
    assert needed > 24
    assert "about" not in judge_auroc(_frame(needed), GATES).sentence


def test_a_subgroup_that_loses_is_named() -> None:
    frame = _frame(60)
    assert judge_subgroups(frame, GATES).passed
    swapped = (frame["scanner"] == "B") & (frame["label"] == "abnormal")
    frame.loc[swapped, "challenger"] -= 2.0
    line = judge_subgroups(frame, GATES)
    assert not line.passed and "scanner B" in line.sentence
    assert "too small" in judge_subgroups(_frame(4), GATES).sentence


def test_calibration_is_the_tail_of_the_beta_binomial() -> None:
    frame = _frame(30)
    calibration = Calibration(scores=tuple(np.linspace(-3, 0.0, 99).tolist()), patients=99)
    alarms = int((frame.loc[frame["label"] == "normal", "challenger"] > calibration.threshold(0.1).value).sum())
    line = judge_calibration(frame, GATES, calibration, 0.1)
    assert f"{alarms} of 30" in line.sentence and not line.passed
    assert f"{betabinom.sf(alarms - 1, 30, 10, 90):.2g}" in line.sentence
    high = Calibration(scores=tuple(np.linspace(-3, 9.0, 99).tolist()), patients=99)
    assert judge_calibration(frame, GATES, high, 0.1).passed
    assert not judge_calibration(frame, GATES, None, 0.1).passed
    assert "999" in judge_calibration(frame, GATES, high, 0.001).sentence  # normals that such a rate needs
    clustered = high.model_copy(update={"design": "clustered"})
    assert "no guarantee" in judge_calibration(frame, GATES, clustered, 0.1).sentence


@pytest.mark.parametrize(("seconds", "passed"), [((1.0, 1.4), True), ((1.0, 1.6), False), ((0.0, 1.0), False)])
def test_speed_is_relative(seconds: tuple[float, float], passed: bool) -> None:
    assert judge_speed(seconds, 10, GATES).passed is passed


@pytest.mark.parametrize(
    ("studies", "more", "lost", "passed"),
    [(49, 0, 0, False), (100, 5, 0, True), (100, 6, 0, False), (100, 0, 1, False)],
)
def test_the_shadow_limits_the_flags(studies: int, more: int, lost: int, passed: bool) -> None:
    flags = pd.DataFrame({"champion": np.arange(studies) < 10, "challenger": np.arange(studies) < 10 + more})
    assert judge_shadow(flags, lost, GATES).passed is passed


def test_the_first_champion_is_compared_with_nobody() -> None:
    lines = list(judge_gate_set(_frame(30), GATES, None, 0.1, first=True))
    assert [line.gate for line in lines] == ["size", "calibration"]
    assert lines[0].passed and "30 normal and 30 abnormal" in lines[0].sentence
