"""Streams of scans under watch: evidence of a change, its day, and signals of a CUSUM, from the scans alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from itertools import groupby
from typing import Any

import numpy as np

from pipeline.monitoring.cusum import Chart, to_normal
from pipeline.monitoring.martingale import first_crossing, likely_change, log_capital
from pipeline.monitoring.sequential_ranks import rank_stream

LOG_10 = float(np.log(10))


@dataclass(frozen=True, slots=True)
class Observation:
    """One scan of a stream: its day, a value, a uniform number that breaks ties, and the model that gave the value."""

    day: date
    value: float
    tie: float
    model: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """Evidence against the claim that a stream has not changed.

    Attributes:
        scans: of the stream.
        days: with scans, in order; `capital` is the base-10 logarithm of the capital at the end of each.
        level: base-10 logarithm of the capital at which it alarms.
        alarm: day of the alarm that is open; None without one.
        since: likely day of the change behind it.
        since_scan: index of the first scan after it.
    """

    scans: int
    days: tuple[date, ...]
    capital: tuple[float, ...]
    level: float
    alarm: date | None
    since: date | None
    since_scan: int | None

    def to_json(self) -> dict[str, Any]:
        """Return plain values, days as text."""
        return asdict(self) | {
            "days": [str(day) for day in self.days],
            "alarm": None if self.alarm is None else str(self.alarm),
            "since": None if self.since is None else str(self.since),
        }


def gather_evidence(observations: Sequence[Observation], log_level: float) -> Evidence:
    """Return the evidence of a stream in the order of its scans.

    Values of different models cannot be compared, so ranks begin again with each model. The capital goes on, so that
    the promise holds over all models together; it begins again at 1 with the first model after an alarm.

    Args:
        observations: in the order of arrival.
        log_level: natural logarithm of the capital at which the stream alarms.
    """
    first, p_values, logs = 0, np.empty(0), np.empty(0)
    for start, ranks in _ranks(observations):
        if first_crossing(logs[first:], log_level) is not None:
            first, p_values = start, np.empty(0)
        p_values = np.concatenate([p_values, ranks])
        logs = np.concatenate([logs[:first], log_capital(p_values)])
    crossing = first_crossing(logs[first:], log_level)
    change = None if crossing is None else first + likely_change(p_values, crossing)
    last_of_day = {one.day: place for place, one in enumerate(observations)}
    return Evidence(
        len(observations),
        tuple(last_of_day),
        tuple(float(logs[place]) / LOG_10 for place in last_of_day.values()),
        log_level / LOG_10,
        None if crossing is None else observations[first + crossing].day,
        None if change is None else observations[change].day,
        change,
    )


def find_signals(observations: Sequence[Observation], chart: Chart) -> list[date]:
    """Return the days of a CUSUM's signals."""
    if not observations:
        return []
    z = to_normal(np.concatenate([ranks for _, ranks in _ranks(observations)]))
    return [observations[place].day for place in chart.signals(z)]


def _ranks(observations: Sequence[Observation]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the index of the first scan of each model, and the p-values of its scans."""
    start = 0
    for _, group in groupby(observations, key=lambda one: one.model):
        part = list(group)
        values, ties = np.array([one.value for one in part]), np.array([one.tie for one in part])
        yield start, rank_stream(values, ties)
        start += len(part)
