"""A simulated year: what goes wrong is planned with its alerts, and the comparison notices alerts and slow nights."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from pipeline.dicom.phantom.folder import write_phantoms
from pipeline.stages.reliability.calendar import QUIET, Event, Plan, plan_year
from pipeline.stages.reliability.simulated_year import Raised, SimulatedNight, SimulatedYear, show_year
from pipeline.stages.reliability.upgraded_scanner import SHARE, upgrade_scanner

ROOT = Path(__file__).resolve().parents[3]


def test_every_kind_goes_wrong_in_a_year_after_ordinary_nights_and_between_them() -> None:
    plan = plan_year(365, seed=3)
    assert plan == plan_year(365, seed=3) != plan_year(365, seed=4)
    assert set(plan.events.values()) == set(Event) - {Event.NONE}
    assert min(plan.events) >= QUIET and max(plan.events) < 365
    starts = [night for night in plan.events if plan.events.get(night - 1) is not plan.events[night]]
    assert all(night - 1 not in plan.events and night - 2 not in plan.events for night in starts)
    assert 1 / 10 < len(starts) / 365 < 1 / 5


def test_an_outage_is_one_alert_and_a_lost_pacs_is_two() -> None:
    outage = dict.fromkeys((10, 11, 12), Event.MISSED)
    plan = Plan(outage | {20: Event.PACS_GONE, 30: Event.EMPTY}, upgrade=60)
    expected = (("missed:nightly", 10), ("failed:nightly", 20), ("unsent:", 20))
    assert plan.expect(30) == expected
    assert plan.expect(31) == (*expected, ("empty:nightly", 30))


def year_of(seconds: list[float], raised: tuple[Raised, ...] = ()) -> SimulatedYear:
    sizes = {"catalogue": 1.0, "mlflow": 2.0}
    nights = tuple(SimulatedNight(n, Event.NONE, 2 * cpu, cpu, sizes) for n, cpu in enumerate(seconds))
    return SimulatedYear(nights, raised, (("empty:nightly", 3), ("unsent:", 5)), upgrade=20)


def test_alerts_are_compared_by_key_and_night_and_drift_apart() -> None:
    raised = (Raised("unsent:PACS@h:1", 5, 6), Raised("late:nightly", 7, None), Raised("drift:ct", 25, None))
    year = year_of([1.0] * 30, raised)
    assert year.missing == [("empty:nightly", 3)]
    assert year.surplus == [("late:nightly", 7)]
    assert year.drift == [25]
    twice = replace(year, raised=(raised[0], raised[0]))
    assert twice.surplus == [("unsent:", 5)]


def test_slow_nights_are_noticed_and_nights_in_which_something_went_wrong_do_not_count() -> None:
    year = year_of([9.0] * 5 + [2.0] * 10 + [7.0] * 5 + [3.0] * 10)
    assert year.slowdown() == pytest.approx(1.5)
    wrong = replace(year.nights[0], number=30, event=Event.REFUSED, cpu_seconds=99.0)
    assert replace(year, nights=(*year.nights, wrong)).slowdown() == pytest.approx(1.5)


def test_the_table_has_a_row_per_month() -> None:
    rows = show_year(year_of([1.0] * 30 + [2.0] * 5, (Raised("empty:nightly", 3, 4),)))
    assert [row["nights"] for row in rows] == ["1 to 30", "31 to 35"]
    assert [row["alerts opened"] for row in rows] == [1, 0]
    assert [row["processor, median s"] for row in rows] == ["1.00", "2.00"]


def test_an_upgraded_scanner_adds_noise_to_the_pixels_and_changes_nothing_else(tmp_path: Path) -> None:
    study = write_phantoms(tmp_path, 1, "MR", 0.0, 3, size=32).studies[0]
    before = pydicom.dcmread(study.files[0].path)
    (tmp_path / "broken.dcm").write_bytes(b"\0" * 200)
    upgrade_scanner(tmp_path, seed=1)
    after = pydicom.dcmread(study.files[0].path)
    assert after.SOPInstanceUID == before.SOPInstanceUID and after.PatientID == before.PatientID
    difference = after.pixel_array.astype(float) - before.pixel_array
    # Noise below zero is cut off where the background is dark, so that the spread lies below SHARE.
    assert 0.5 * SHARE < difference.std() / before.pixel_array.std() < 1.1 * SHARE
    assert np.abs(difference).max() > 0 and (tmp_path / "broken.dcm").read_bytes() == b"\0" * 200


@pytest.mark.slow
def test_weeks_of_nights_raise_the_alerts_that_were_caused(tmp_path: Path) -> None:
    """In a process of its own: the parent of forked nights must not have computed with torch before."""
    options = ["--nights", "20", "--seed", "11", "--studies", "2", "--json", "--folder", str(tmp_path)]
    command = [sys.executable, "-m", "pipeline.cli", "benchmark", "nights", *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=1800)
    year = json.loads(done.stdout)
    # Of this seed no scan arrives in night 11, and the nights 15 to 17 do not run.
    assert len(year["nights"]) == 20
    assert {"empty:nightly", "missed:nightly"} <= {one["key"] for one in year["alerts"]["raised"]}
    assert year["alerts"]["missing"] == year["alerts"]["surplus"] == []
