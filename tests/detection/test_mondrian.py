"""Thresholds within groups: the rate of every group is held where a pooled threshold violates a shifted group's."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import betabinom

from pipeline.detection.conformal import Calibration, Unit
from pipeline.detection.flag import flag_by_fpr
from pipeline.detection.mondrian import count_needed, describe_groups, find_reference, write_groups
from pipeline.types import Finding

ALPHA, MARGIN, FRESH = 0.05, 20, 2000
SIZES = {"scanner old": 400, "scanner new": 200, "scanner rare": 25}
SHIFTS = {"scanner old": 0.0, "scanner new": 1.5, "scanner rare": 0.0}  # standard deviations


def fit(rng: np.random.Generator) -> Calibration:
    """Return a calibration of three scanners, one of which scores its normals higher."""
    units, groups = [], {}
    for name, n in SIZES.items():
        for index, score in enumerate(rng.normal(SHIFTS[name], size=n)):
            unit = Unit(f"{name}/{index}", f"{name}/{index}", float(score))
            units.append(unit)
            groups[unit.unit_id] = name
    return Calibration.fit(units, groups=groups, group_least=count_needed(ALPHA, MARGIN))


def count_alarms(calibration: Calibration, group: str, fresh: np.ndarray, grouped: bool) -> int:
    """Return how many fresh normals of a group a night flags, by its own rule."""
    reference, worth = find_reference(calibration, group) if grouped else (calibration, "conformal")
    p_values = reference.p_values(fresh).tolist()
    about = (reference.n, worth)
    return flag_by_fpr([Finding(f"s{i}", f"p{i}", "r", 0.0, p, *about) for i, p in enumerate(p_values)], ALPHA).count


def is_promised(alarms: int, n: int) -> bool:
    """Whether a count of alarms is within the central 99.9999 % of the beta-binomial of n calibration normals."""
    k = int(ALPHA * (n + 1) + 1e-9)
    low, high = betabinom(FRESH, k, n + 1 - k).ppf([5e-7, 1 - 5e-7])
    return bool(low <= alarms <= high)


def test_each_group_has_its_rate_and_the_pooled_threshold_violates_the_shifted_one() -> None:
    rng = np.random.default_rng(16)
    calibration = fit(rng)
    for name in ("scanner old", "scanner new"):
        fresh = rng.normal(SHIFTS[name], size=FRESH)
        own, pooled = (count_alarms(calibration, name, fresh, grouped) for grouped in (True, False))
        assert is_promised(own, SIZES[name]), (name, own / FRESH)
        assert not is_promised(pooled, calibration.n), (name, pooled / FRESH)
        assert (pooled > own) is (name == "scanner new")


def test_many_calibrations_hold_the_rate_of_every_group_on_average() -> None:
    rng = np.random.default_rng(17)
    rates = {True: [], False: []}
    for _ in range(40):
        calibration, fresh = fit(rng), rng.normal(1.5, size=200)
        for grouped, of in rates.items():
            of.append(count_alarms(calibration, "scanner new", fresh, grouped) / 200)
    error = np.std(rates[True]) / np.sqrt(40)
    assert abs(np.mean(rates[True]) - 10 / 201) < 5 * error < 0.025
    assert np.mean(rates[False]) > 0.08


def test_a_small_group_is_pooled_and_says_so() -> None:
    calibration = fit(np.random.default_rng(1))
    assert calibration.group_least == 39 == count_needed(ALPHA, MARGIN)
    own, words = find_reference(calibration, "scanner new")
    assert (own.n, words) == (200, "conformal within scanner new")
    for name, n in (("scanner rare", 25), ("scanner of tomorrow", 0)):
        pooled, words = find_reference(calibration, name)
        assert pooled is calibration and f"{name} has {n} calibration normals, and 39 are needed" in words
    rows = describe_groups(calibration, ALPHA)
    assert [(row["group"], row["n"], row["own"]) for row in rows] == [
        ("scanner old", 400, True), ("scanner new", 200, True), ("scanner rare", 25, False),
    ]  # fmt: skip
    assert (
        rows[1]["threshold"] == own.threshold(ALPHA).value > rows[2]["threshold"] == calibration.threshold(ALPHA).value
    )
    sentence = write_groups(rows, 39)
    assert "scanner rare (25)" in sentence and "fewer than 39" in sentence and write_groups([], 0) == ""


def test_a_calibration_with_groups_survives_json_and_without_them_nothing_changes() -> None:
    calibration = fit(np.random.default_rng(2))
    assert Calibration.model_validate(calibration.model_dump(mode="json")) == calibration
    assert "pooled" in calibration.guarantee
    plain = Calibration.fit([Unit("a", "a", 1.0)])
    assert find_reference(plain, "anything") == (plain, "conformal")
    stored = calibration.model_dump(mode="json")
    stored["groups"] = stored["groups"][:1]
    with pytest.raises(ValidationError, match="every calibration score once"):
        Calibration.model_validate(stored)


@pytest.mark.parametrize(("alpha", "margin", "needed"), [(0.05, 0, 19), (0.01, 20, 119), (0.3, 0, 3)])
def test_the_rule_is_exact(alpha: float, margin: int, needed: int) -> None:
    assert count_needed(alpha, margin) == needed
