"""Conformal p-values and thresholds: numbers worked out by hand, refusals, round trips."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import beta

from pipeline.detection.conformal import Calibration, Unit, count_allowed_exceedances, one_per_patient
from pipeline.errors import ConfigError, Rejected, TooFewNormals

finite = st.floats(allow_nan=False, allow_infinity=False, width=64)


def units(scores: list[float]) -> list[Unit]:
    return [Unit(f"study{i}", f"patient{i}", score) for i, score in enumerate(scores)]


def test_p_values_by_hand() -> None:
    # n = 4: below all 5/5; equal to 2 (ties count against): 1 + 3 of {2, 2, 3}; above all 1/5
    calibration = Calibration.fit(units([2.0, 1.0, 3.0, 2.0]))
    assert calibration.p_values([0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 9.0]).tolist() == [1.0, 1.0, 0.8, 0.8, 0.4, 0.4, 0.2]
    assert math.isnan(calibration.p_value(math.nan))
    assert calibration.p_value(math.inf) == 0.2


def test_threshold_by_hand() -> None:
    # n = 39, alpha = 5 %: k = floor(0.05 x 40) = 2, so the second largest of 1..39; flagged are scores above 38
    threshold = Calibration.fit(units([float(i) for i in range(1, 40)])).threshold(0.05)
    assert (threshold.value, threshold.k, threshold.n, threshold.expected_fpr) == (38.0, 2, 39, 0.05)
    # Beta(2, 38) has P(X <= x) = 1 - (1-x)^39 - 39 x (1-x)^38: at the interval's ends 0.025 and 0.975
    for end, level in zip(threshold.interval, (0.025, 0.975), strict=True):
        assert 1 - (1 - end) ** 39 - 39 * end * (1 - end) ** 38 == pytest.approx(level, abs=1e-9)
    assert threshold.guarantee == "conformal"


@pytest.mark.parametrize(
    ("alpha", "n", "k"), [(0.05, 19, 1), (0.05, 38, 1), (0.05, 39, 2), (0.29, 99, 29), (0.07, 99, 7), (0.1, 29, 3)]
)
def test_k_is_exact_in_decimals(alpha: float, n: int, k: int) -> None:
    assert count_allowed_exceedances(alpha, n) == k


@pytest.mark.parametrize(("alpha", "need"), [(0.05, 19), (0.01, 99), (0.1, 9), (0.03, 33), (0.001, 999)])
def test_too_few_normals_says_how_many(alpha: float, need: int) -> None:
    with pytest.raises(TooFewNormals, match=f"{need} ") as caught:
        Calibration.fit(units([1.0] * (need - 1))).threshold(alpha)
    assert (caught.value.have, caught.value.need) == (need - 1, need)
    assert Calibration.fit(units([1.0] * need)).threshold(alpha).k == 1


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 5.0, math.nan])
def test_alpha_out_of_range(alpha: float) -> None:
    with pytest.raises(ConfigError, match="false-positive rate"):
        Calibration.fit(units([1.0])).threshold(alpha)


@given(st.lists(finite, min_size=1, max_size=60), st.lists(finite, min_size=1, max_size=20), st.floats(0.02, 0.9))
def test_threshold_and_p_value_are_one_rule(normals: list[float], scores: list[float], alpha: float) -> None:
    calibration = Calibration.fit(units(normals))
    if alpha * (len(normals) + 1) < 1.001:
        return
    threshold = calibration.threshold(alpha)
    below = calibration.p_values(scores) <= threshold.k / (threshold.n + 1) + 1e-12
    assert (np.asarray(scores) > threshold.value).tolist() == below.tolist()


@given(st.lists(finite, min_size=1, max_size=30), st.booleans(), st.randoms())
def test_json_round_trip_is_exact_and_order_is_nothing(
    scores: list[float], clustered: bool, rng: random.Random
) -> None:
    calibration = Calibration.fit(units(scores), clustered=clustered)
    assert Calibration.model_validate(json.loads(json.dumps(calibration.model_dump(mode="json")))) == calibration
    shuffled = units(scores)
    rng.shuffle(shuffled)
    assert Calibration.fit(shuffled, clustered=clustered) == calibration


def test_one_unit_per_patient_by_hash_never_by_score() -> None:
    many = [Unit(f"s{i}", f"p{i % 3}", float(i)) for i in range(12)]
    chosen = one_per_patient(many)
    assert sorted(unit.patient_id for unit in chosen) == ["p0", "p1", "p2"]
    other = [Unit(unit.unit_id, unit.patient_id, -unit.score) for unit in reversed(many)]
    assert {unit.unit_id for unit in one_per_patient(other)} == {unit.unit_id for unit in chosen}
    assert Calibration.fit(many).n == 3


def test_clustered_data_keep_all_units_and_lose_the_guarantee() -> None:
    calibration = Calibration.fit([Unit(f"s{i}", "p", float(i)) for i in range(30)], clustered=True)
    assert (calibration.n, calibration.patients) == (30, 1)
    threshold = calibration.threshold(0.1)
    assert threshold.guarantee == calibration.guarantee == "empirical, clustered, no guarantee"
    assert threshold.interval is None


def test_interval_is_the_beta_of_the_units() -> None:
    threshold = Calibration.fit(units(list(range(200)))).threshold(0.1)
    assert threshold.interval == pytest.approx(tuple(beta(20, 181).ppf([0.025, 0.975])))


def test_bad_units_are_refused() -> None:
    with pytest.raises(TooFewNormals):
        Calibration.fit([])
    for bad in (math.nan, math.inf):
        with pytest.raises(Rejected, match="not finite"):
            Calibration.fit(units([1.0, bad]))
    with pytest.raises(ConfigError, match=r"\b1\b.*\bunits\b.*\bs\b"):
        Calibration.fit([Unit("s", "p", 1.0), Unit("s", "q", 2.0)])
    with pytest.raises(ConfigError, match=r"\b1\b.*\bpatients\b.*\bpatient1\b"):
        Calibration.fit(units([1.0, 2.0]), trained_on={"patient1", "patient9"})


@pytest.mark.parametrize("change", [{"scores": [2.0, 1.0]}, {"scores": []}, {"patients": 1}, {"extra": 1}])
def test_a_tampered_calibration_is_refused(change: dict[str, object]) -> None:
    values = Calibration.fit(units([1.0, 2.0])).model_dump(mode="json")
    with pytest.raises(ValidationError):
        Calibration.model_validate(values | change)
