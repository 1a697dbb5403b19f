"""Martingales on sequential ranks: the promise over all scans, the trap of a fixed set, and bets by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from pipeline.monitoring.martingale import alarm_level, first_crossing, likely_change, log_capital
from pipeline.monitoring.sequential_ranks import SequentialRanks, rank_stream

ALPHA = 0.05
STREAMS, SCANS, CALIBRATION = 300, 800, 60


def _share_of_alarms(p_values: np.ndarray) -> float:
    return float((log_capital(p_values).max(axis=1) >= np.log(1 / ALPHA)).mean())


def _beyond(promise: float) -> float:
    """Return the share of alarms that a true promise exceeds by five standard errors only."""
    return promise + 5 * float(np.sqrt(promise * (1 - promise) / STREAMS))


@pytest.fixture(scope="module")
def streams() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores with ties [STREAMS, SCANS], numbers that break them, and calibration scores [STREAMS, CALIBRATION]."""
    rng = np.random.default_rng(5)
    scores = np.round(rng.gamma(2.0, size=(STREAMS, SCANS)), 2)
    return scores, rng.random(scores.shape), np.round(rng.gamma(2.0, size=(STREAMS, CALIBRATION)), 2)


@pytest.mark.parametrize("calibrated", [False, True])
def test_the_capital_ever_reaches_one_over_alpha_in_at_most_alpha_of_all_streams(
    streams: tuple[np.ndarray, np.ndarray, np.ndarray], calibrated: bool
) -> None:
    scores, ties, calibration = streams
    ranks = np.stack(
        [
            rank_stream(row, tie, first if calibrated else ())
            for row, tie, first in zip(scores, ties, calibration, strict=True)
        ]
    )
    assert kstest(ranks.ravel(), "uniform").pvalue > 1e-6  # ties included
    assert _share_of_alarms(ranks) <= _beyond(ALPHA)


def test_p_values_against_a_fixed_calibration_set_break_the_promise(
    streams: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    scores, ties, calibration = streams
    above = (calibration[:, None, :] > scores[:, :, None]).sum(axis=2)
    equal = (calibration[:, None, :] == scores[:, :, None]).sum(axis=2)
    fixed = (above + ties * (equal + 1)) / (CALIBRATION + 1)
    assert _share_of_alarms(fixed) > 3 * _beyond(ALPHA)


@pytest.mark.parametrize("change", [lambda x: x + 1.0, lambda x: x - 1.0, lambda x: 2 * (x - 2) + 2])
def test_a_shift_or_a_wider_spread_is_seen(change: object) -> None:
    rng = np.random.default_rng(11)
    scores = 2 + rng.normal(size=(20, 900))
    scores[:, 400:] = change(scores[:, 400:])  # type: ignore[operator]
    ranks = np.stack([rank_stream(row, rng.random(900)) for row in scores])
    capital = log_capital(ranks)
    crossings = [first_crossing(row, np.log(1000)) for row in capital]
    assert all(place is not None and place >= 400 for place in crossings)
    onsets = [likely_change(row, place) for row, place in zip(ranks, crossings, strict=True) if place is not None]
    assert abs(float(np.median(onsets)) - 400) < 15


def test_one_expert_multiplies_its_bets() -> None:
    p_values = np.array([0.1, 0.9, 0.25])
    by_hand = np.log(np.cumprod([1 + 0.4, 1 - 0.4, 1 + 0.25]))
    np.testing.assert_allclose(log_capital(p_values, (0.5,), (-1.0,), ()), by_hand)
    by_hand = np.log(np.cumprod([1 + 0.3, 1 + 0.3, 1 + 0.0]))  # |2 p - 1| is 0.8, 0.8 and 0.5
    np.testing.assert_allclose(log_capital(p_values, (0.5,), (), (1.0,)), by_hand)


def test_two_experts_share_the_capital_and_jump() -> None:
    # (1/2)(1.4 + 0.6) = 1; then 0.9 of each stays and 0.05 comes from the pool of 1: shares 0.68 and 0.32.
    second = 0.68 * 1.25 + 0.32 * 0.75
    capital = np.exp(log_capital(np.array([0.1, 0.25]), (0.1,), (-1.0, 1.0), ()))
    np.testing.assert_allclose(capital, [1.0, second])


def test_ruined_experts_do_not_end_the_game() -> None:
    capital = log_capital(np.array([1e-300, 1 - 1e-16, 0.5, 1e-12]))
    assert np.isfinite(capital).all()


def test_streams_are_independent_of_each_other() -> None:
    p_values = np.random.default_rng(1).random((3, 50))
    np.testing.assert_allclose(log_capital(p_values)[1], log_capital(p_values[1]))


def test_the_levels_of_all_streams_spend_alpha_once() -> None:
    spent = sum(np.exp(-alarm_level(0.01, number)) for number in range(1, 10_000))
    assert 0.0099 < spent < 0.01


def test_ranks_by_hand() -> None:
    ranks = SequentialRanks([1.0, 3.0])
    assert ranks.add(2.0, 0.5) == pytest.approx((1 + 0.5) / 3)
    assert ranks.add(2.0, 0.25) == pytest.approx((1 + 0.25 * 2) / 4)
    assert len(ranks) == 4
