"""Simulated years: quiet while nothing changes, quick after a change, and fixed references that cry wolf."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.stages.benchmark import drift_years
from pipeline.stages.benchmark.drift_years import (
    alarm_of_cusum,
    alarm_of_fixed_set,
    alarm_of_martingale,
    alarm_of_windows,
    clopper_pearson,
    draw_year,
    measure_drift,
    show_drift_table,
    summarise,
)


@pytest.fixture(autouse=True)
def short_years(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift_years, "NIGHTS", 160)
    monkeypatch.setattr(drift_years, "CHANGE", 80)


def test_after_an_upgrade_every_year_is_detected() -> None:
    rng = np.random.default_rng(0)
    years = [draw_year("scanner upgrade", 10, rng) for _ in range(10)]
    row = summarise("scanner upgrade", "martingale", alarm_of_martingale(years), years)
    assert row.detected == 1.0
    assert row.delay_scans is not None and row.delay_scans < 500
    assert row.delay_nights == np.ceil(row.delay_scans / 10)
    quick = summarise("scanner upgrade", "CUSUM", alarm_of_cusum(years), years)
    assert quick.delay_scans is not None and quick.delay_scans < row.delay_scans


def test_in_steady_years_only_fixed_references_cry_wolf() -> None:
    rng = np.random.default_rng(1)
    years = [draw_year("steady", 10, rng) for _ in range(20)]
    rates = {
        test.__name__: summarise("steady", "", test(years), years).false_alarms
        for test in (alarm_of_martingale, alarm_of_fixed_set, alarm_of_windows)
    }
    assert rates["alarm_of_martingale"] <= 0.15  # 5 sigma above 0.01 at 20 years
    assert rates["alarm_of_fixed_set"] > 0.2 and rates["alarm_of_windows"] > 0.2


def test_every_scenario_and_test_has_a_row_of_the_table() -> None:
    rows = measure_drift(years=2, scans_a_night=2)
    assert len(rows) == len(drift_years.SCENARIOS) * len(drift_years.TESTS)
    assert all(row["false alarms"].endswith("%)") for row in show_drift_table(rows))


def test_exact_interval_of_a_share() -> None:
    assert clopper_pearson(0, 10) == pytest.approx((0.0, 1 - 0.025**0.1))
    assert clopper_pearson(10, 10) == pytest.approx((0.025**0.1, 1.0))
