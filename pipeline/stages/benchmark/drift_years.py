"""Simulated years of nights: how soon each test of drift alarms after a change, and how often before it.

A study's score is lognormal for normal scans, and moves up by two standard deviations of its logarithm for the one in
ten that is ill. A year is steady up to a night in its second quarter, and changes then:

- *scanner upgrade*: every score moves up by half a standard deviation.
- *protocol change*: the scores of one protocol, four scans in ten, move by one.
- *gain drift*: from that night on scores creep up, by one standard deviation until the end of the year.
- *seasonal case mix*: the share of ill scans swings between 5 and 15 per cent around the year. Nothing is broken.
- *steady*: nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import kolmogorov
from scipy.stats import beta

from pipeline.monitoring.cusum import Chart, to_normal
from pipeline.monitoring.martingale import alarm_level, first_crossing, log_capital
from pipeline.monitoring.sequential_ranks import rank_stream

NIGHTS, CHANGE = 365, 120
ILL, ILL_SHIFT = 0.1, 2.0
PROTOCOL = 0.4  # share of scans of the protocol that changes
ALPHA, ARL0, K = 0.01, 10_000.0, 0.25
CALIBRATION = 240  # normals of the calibrate set
REFERENCE_NIGHTS, WINDOW_NIGHTS = 30, 7  # of the fixed-window KS test
SCENARIOS = ("steady", "scanner upgrade", "protocol change", "gain drift", "seasonal case mix")


class Year(NamedTuple):
    """Scans of one year in order: scores [N], uniform numbers [N], night of each [N], and normals to calibrate on."""

    scores: np.ndarray
    ties: np.ndarray
    night: np.ndarray
    calibration: np.ndarray


@dataclass(frozen=True, slots=True)
class DriftRow:
    """One test in one scenario.

    Attributes:
        false_alarms: share of years with an alarm before the change, or at all where nothing changes.
        detected: share of the other years with an alarm after it; None where nothing changes.
        delay_scans, delay_nights: medians over all of those years; None if fewer than half are detected.
    """

    scenario: str
    test: str
    years: int
    false_alarms: float
    false_low: float
    false_high: float
    detected: float | None
    delay_scans: float | None
    delay_nights: float | None


def measure_drift(years: int = 200, scans_a_night: int = 10, seed: int = 0) -> list[DriftRow]:
    """Return a row for every scenario and test; about a minute for 200 years of 10 scans a night."""
    rows = []
    for number, scenario in enumerate(SCENARIOS):
        rng = np.random.default_rng([seed, number])
        drawn = [draw_year(scenario, scans_a_night, rng) for _ in range(years)]
        rows += [summarise(scenario, name, test(drawn), drawn) for name, test in TESTS.items()]
    return rows


def draw_year(scenario: str, scans_a_night: int, rng: np.random.Generator, ill: float = ILL) -> Year:
    """Return a year of a scenario; 0 for `ill` gives a site with normal scans only."""
    count = NIGHTS * scans_a_night
    night = np.repeat(np.arange(NIGHTS), scans_a_night)
    log_score = rng.normal(size=count) + ILL_SHIFT * (rng.random(count) < _share_of_ill(scenario, night, ill))
    log_score += _moved(scenario, night, rng.random(count) < PROTOCOL)
    return Year(np.exp(log_score / 4), rng.random(count), night, np.exp(rng.normal(size=CALIBRATION) / 4))


def _share_of_ill(scenario: str, night: np.ndarray, ill: float) -> np.ndarray:
    swing = 0.5 * np.sin(2 * np.pi * night / NIGHTS) if scenario == "seasonal case mix" else 0.0
    return ill * (1 + swing * np.ones(len(night)))


def _moved(scenario: str, night: np.ndarray, protocol: np.ndarray) -> np.ndarray:
    after = night >= CHANGE
    moves = {
        "scanner upgrade": 0.5 * after,
        "protocol change": 1.0 * (after & protocol),
        "gain drift": np.maximum(0.0, night - CHANGE) / (NIGHTS - CHANGE),
    }
    return moves.get(scenario, np.zeros(len(night)))


def alarm_of_martingale(years: list[Year], calibrated: bool = False) -> list[int | None]:
    """Return the first alarm of each year: capital of 1/alpha on ranks among the scans before.

    `calibrated` ranks among calibration normals too, with which a site's scans, some of them ill, are not exchangeable.
    """
    firsts = [year.calibration if calibrated else () for year in years]
    ranks = [rank_stream(year.scores, year.ties, first) for year, first in zip(years, firsts, strict=True)]
    return _crossings(np.stack(ranks))


def alarm_of_fixed_set(years: list[Year]) -> list[int | None]:
    """Return the first alarm of each year with p-values against the fixed calibration set: a broken promise."""
    p_values = []
    for year in years:
        above = (year.calibration[None, :] > year.scores[:, None]).sum(axis=1)
        p_values.append((above + year.ties) / (CALIBRATION + 1))
    return _crossings(np.stack(p_values))


def alarm_of_cusum(years: list[Year]) -> list[int | None]:
    """Return the first signal of each year of the CUSUM on the same ranks."""
    chart = Chart.design(ARL0, K)
    signals = [chart.signals(to_normal(rank_stream(year.scores, year.ties))) for year in years]
    return [places[0] if places else None for places in signals]


def alarm_of_windows(years: list[Year], nights_tested: int = 1) -> list[int | None]:
    """Return the first alarm of each year of a KS test per night, of the last week against the first month.

    The level of each test is alpha, divided by `nights_tested` if the tests are to be corrected for their number.
    """
    return [_windowed(year, ALPHA / nights_tested) for year in years]


def _crossings(p_values: np.ndarray) -> list[int | None]:
    level = alarm_level(ALPHA, 1) - np.log(2)  # one stream spends all of alpha
    return [first_crossing(row, level) for row in log_capital(p_values)]


def _windowed(year: Year, alpha: float) -> int | None:
    reference = np.sort(year.scores[year.night < REFERENCE_NIGHTS])
    for night in range(REFERENCE_NIGHTS + WINDOW_NIGHTS, NIGHTS + 1):
        recent = np.sort(year.scores[(year.night >= night - WINDOW_NIGHTS) & (year.night < night)])
        if _ks_p_value(reference, recent) <= alpha:
            return int(np.searchsorted(year.night, night)) - 1
    return None


def _ks_p_value(first: np.ndarray, second: np.ndarray) -> float:
    """Return the asymptotic p-value of the two-sample Kolmogorov-Smirnov test on sorted values."""
    both = np.concatenate([first, second])
    shares = [np.searchsorted(one, both, side="right") / len(one) for one in (first, second)]
    distance = float(np.abs(shares[0] - shares[1]).max())
    return float(kolmogorov(distance * np.sqrt(len(first) * len(second) / len(both))))


TESTS: dict[str, Callable[[list[Year]], list[int | None]]] = {
    "martingale": alarm_of_martingale,
    "CUSUM": alarm_of_cusum,
    "KS, last 7 nights, each night at 1 %": alarm_of_windows,
    "KS, corrected for the nights of a year": lambda years: alarm_of_windows(years, NIGHTS - REFERENCE_NIGHTS),
    "martingale, fixed calibration set": alarm_of_fixed_set,
    "martingale, calibration and scans before": lambda years: alarm_of_martingale(years, calibrated=True),
}


def summarise(scenario: str, test: str, alarms: list[int | None], years: list[Year]) -> DriftRow:
    """Return the row of a test from its first alarm in each year."""
    change = int(np.searchsorted(years[0].night, CHANGE))
    nothing = scenario == "steady"
    false = [alarm is not None and (nothing or alarm < change) for alarm in alarms]
    low, high = clopper_pearson(sum(false), len(false))
    header = (scenario, test, len(years), sum(false) / len(false), low, high)
    late: list[float] = [
        np.inf if alarm is None else alarm - change + 1 for alarm, early in zip(alarms, false, strict=True) if not early
    ]
    if nothing or not late:
        return DriftRow(*header, None, None, None)
    median = float(np.median(late)) if np.mean(np.isfinite(late)) > 0.5 else None
    a_night = len(years[0].night) / NIGHTS
    return DriftRow(
        *header, float(np.mean(np.isfinite(late))), median, None if median is None else float(np.ceil(median / a_night))
    )


def clopper_pearson(count: int, of: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a share."""
    low = 0.0 if count == 0 else float(beta.ppf(0.025, count, of - count + 1))
    return low, 1.0 if count == of else float(beta.ppf(0.975, count + 1, of - count))


def show_drift_table(rows: list[DriftRow]) -> list[dict[str, Any]]:
    """Return the rows with the columns of the printed table."""
    return [
        {
            "scenario": row.scenario,
            "test": row.test,
            "false alarms": f"{row.false_alarms:.1%} ({row.false_low:.1%} to {row.false_high:.1%})",
            "detected": "" if row.detected is None else f"{row.detected:.0%}",
            "median delay, scans": "" if row.delay_scans is None else f"{row.delay_scans:.0f}",
            "nights": "" if row.delay_nights is None else f"{row.delay_nights:.0f}",
        }
        for row in rows
    ]
