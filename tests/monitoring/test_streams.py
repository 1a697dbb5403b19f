"""Streams under watch: alarms after a change, capital that goes on over models, and nothing lost by a second look."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np

from pipeline.monitoring.cusum import Chart
from pipeline.monitoring.martingale import alarm_level, log_capital
from pipeline.monitoring.sequential_ranks import rank_stream
from pipeline.monitoring.streams import LOG_10, Observation, find_signals, gather_evidence

LEVEL = alarm_level(0.01, 1)
FIRST = date(2026, 1, 1)


def _stream(values: np.ndarray, models: list[str], a_day: int = 10, seed: int = 0) -> list[Observation]:
    ties = np.random.default_rng(seed).random(len(values))
    return [
        Observation(FIRST + timedelta(place // a_day), float(value), float(tie), model)
        for place, (value, tie, model) in enumerate(zip(values, ties, models, strict=True))
    ]


def test_a_steady_stream_is_quiet_and_a_changed_one_is_dated() -> None:
    rng = np.random.default_rng(3)
    steady = rng.normal(size=600)
    quiet = gather_evidence(_stream(steady, ["m"] * 600), LEVEL)
    assert (quiet.alarm, quiet.since, quiet.scans, len(quiet.days)) == (None, None, 600, 60)
    changed = gather_evidence(_stream(steady + np.where(np.arange(600) < 300, 0, 1.2), ["m"] * 600), LEVEL)
    assert changed.alarm is not None and changed.since is not None and changed.since_scan is not None
    assert FIRST + timedelta(30) <= changed.alarm < FIRST + timedelta(45)
    assert abs((changed.since - FIRST).days - 30) <= 3 and abs(changed.since_scan - 300) <= 30
    assert changed.to_json()["alarm"] == str(changed.alarm)


def test_another_model_is_not_a_change_and_the_capital_goes_on() -> None:
    rng = np.random.default_rng(4)
    values = np.concatenate([rng.normal(size=200), 50 + 9 * rng.normal(size=200)])
    stream = _stream(values, ["first"] * 200 + ["second"] * 200)
    evidence = gather_evidence(stream, LEVEL)
    assert evidence.alarm is None
    ties = np.array([one.tie for one in stream])
    ranks = np.concatenate([rank_stream(values[:200], ties[:200]), rank_stream(values[200:], ties[200:])])
    np.testing.assert_allclose(evidence.capital[-1], log_capital(ranks)[-1] / LOG_10)


def test_an_alarm_ends_with_the_next_model() -> None:
    rng = np.random.default_rng(5)
    values = np.concatenate([rng.normal(size=200), 2 + rng.normal(size=100), rng.normal(size=100)])
    assert gather_evidence(_stream(values[:300], ["first"] * 300), LEVEL).alarm is not None
    after = gather_evidence(_stream(values, ["first"] * 300 + ["second"] * 100), LEVEL)
    assert after.alarm is None and after.capital[-1] < 1 < max(after.capital)


def test_what_was_seen_stays_when_more_scans_come() -> None:
    rng = np.random.default_rng(6)
    values = rng.normal(size=100)
    short, longer = (gather_evidence(_stream(values[:count], ["m"] * count), LEVEL) for count in (50, 100))
    assert longer.capital[: len(short.capital)] == short.capital


def test_signals_of_a_statistic_have_days() -> None:
    rng = np.random.default_rng(7)
    values = np.concatenate([rng.normal(size=300), 2 + rng.normal(size=60)])
    days = find_signals(_stream(values, ["m"] * 360), Chart.design(10_000, 0.25))
    assert days and FIRST + timedelta(30) <= days[-1] <= FIRST + timedelta(35)
    assert find_signals([], Chart.design(1000, 0.25)) == []
