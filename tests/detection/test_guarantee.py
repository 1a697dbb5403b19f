"""The guarantee itself: false alarms of fresh normals against the beta-binomial, and the false-discovery rate.

Seeds are fixed, so a cell always passes or always fails. Power is computed beside each test: a calibration that is
off by a factor of two is refuted with a power of 99 % and more, and deliberately broken ones are, by the same test.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import betabinom, kstest

from pipeline.detection.conformal import Calibration, Unit
from pipeline.detection.flag import flag_by_fdr
from pipeline.types import Finding

CALIBRATION, FRESH = 1500, 2500  # units of each cell
Draw = Callable[[np.random.Generator, int], np.ndarray]
CONTINUOUS: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "cauchy": lambda rng, n: rng.standard_cauchy(n),
    "pareto": lambda rng, n: rng.pareto(0.5, n),
}
TIED: dict[str, Draw] = {
    "rounded": lambda rng, n: np.round(rng.normal(size=n), 1),
    "half zeros": lambda rng, n: np.maximum(rng.normal(size=n), 0),
    "one value": lambda rng, n: np.zeros(n),
}


def fit(scores: np.ndarray) -> Calibration:
    return Calibration.fit(Unit(f"s{i}", f"p{i}", float(score)) for i, score in enumerate(scores))


def cells(draws: dict[str, Draw], false_alarms: Callable, **options: object) -> list[float]:
    p_values = []
    for number, draw in enumerate(draws.values()):
        rng = np.random.default_rng((20, number))
        calibration = fit(draw(rng, CALIBRATION))
        value_of = options.get("value_of", lambda c: lambda alpha: c.threshold(alpha).value)(calibration)
        fresh = draw(rng, FRESH)
        p_values += false_alarms(value_of, calibration.n, fresh, bool(options.get("upper_only"))).values()
    return p_values


def test_continuous_scores_follow_the_beta_binomial(false_alarms: Callable, is_refuted: Callable) -> None:
    assert not is_refuted(cells(CONTINUOUS, false_alarms))


def test_ties_only_make_false_alarms_fewer(false_alarms: Callable, is_refuted: Callable) -> None:
    assert not is_refuted(cells(TIED, false_alarms, upper_only=True))


def test_the_test_refutes_a_threshold_at_the_wrong_quantile(false_alarms: Callable, is_refuted: Callable) -> None:
    doubled = cells(CONTINUOUS, false_alarms, value_of=lambda c: lambda alpha: c.threshold(2 * alpha).value)
    halved = cells(CONTINUOUS, false_alarms, value_of=lambda c: lambda alpha: c.threshold(alpha / 2).value)
    lower_tail = cells(CONTINUOUS, false_alarms, value_of=lambda c: lambda alpha: c.scores[int(alpha * c.n)])
    for broken in (doubled, halved, lower_tail):
        assert is_refuted(broken)


def test_the_test_refutes_leaked_patients(false_alarms: Callable, is_refuted: Callable) -> None:
    # Scores of patients that were trained on are too low: here by 0.3 standard deviations: 16 % instead of 10 %.
    rng = np.random.default_rng(4)
    leaked = fit(rng.normal(size=CALIBRATION) - 0.3)
    p_values = false_alarms(lambda a: leaked.threshold(a).value, leaked.n, rng.normal(size=FRESH))
    assert is_refuted([*p_values.values()] * 3)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_power_against_a_factor_of_two(factor: float) -> None:
    """With Bonferroni over nine cells at 1 %, one distribution alone misses it less than once in a hundred."""
    miss = 1.0
    for alpha in (0.01, 0.05, 0.1):
        k, n = round(alpha * (CALIBRATION + 1)), CALIBRATION
        law, wrong = (betabinom(FRESH, j, n + 1 - j) for j in (k, round(k * factor)))
        counts = np.arange(800)  # more than 12 standard deviations above any mean here
        accepted = 2 * np.minimum(law.sf(counts - 1), law.cdf(counts)) >= 0.01 / 9
        miss = min(miss, float(wrong.pmf(counts)[accepted].sum()))
    assert miss < 0.01


def test_many_small_calibrations_have_the_whole_distribution_right() -> None:
    """400 calibrations of 99 units, 100 fresh units each, 5 %: the randomised ranks of the counts are uniform."""
    rng = np.random.default_rng(8)
    law = betabinom(100, 5, 95)
    ranks = []
    for _ in range(400):
        count = int((rng.normal(size=100) > fit(rng.normal(size=99)).threshold(0.05).value).sum())
        ranks.append(law.cdf(count) - rng.random() * law.pmf(count))
    assert kstest(ranks, "uniform").pvalue > 0.01


def test_p_values_of_normals_are_super_uniform() -> None:
    rng = np.random.default_rng(2)
    for draw in (*CONTINUOUS.values(), *TIED.values()):
        p = fit(draw(rng, CALIBRATION)).p_values(draw(rng, FRESH))
        for level in (0.01, 0.05, 0.1, 0.5):
            # standard error of the rate, calibration included: sqrt(a (1 - a) (1 / m + 1 / n)); four of them
            error = np.sqrt(level * (1 - level) * (1 / FRESH + 1 / CALIBRATION))
            assert (p <= level).mean() <= level + 4 * error


def simulate(nights: int, shift_of_calibration: float, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the false-discovery proportion and the share of lesions found, night by night: 90 normals, 10 lesions."""
    rng = np.random.default_rng(6)
    proportions, detected = [], []
    for _ in range(nights):
        calibration = fit(rng.normal(size=1200) + shift_of_calibration)
        scores = rng.normal(size=100)
        scores[:10] += 3.5
        p = calibration.p_values(scores)
        night = [
            Finding(f"s{i}", f"p{i}", "r", s, float(p[i]), 1200, "conformal") for i, s in enumerate(scores.tolist())
        ]
        flagged = np.array([f.flagged for f in flag_by_fdr(night, 0.1, method, capacity=0).findings])
        proportions.append(flagged[10:].sum() / max(flagged.sum(), 1))
        detected.append(flagged[:10].mean())
    return np.array(proportions), np.array(detected)


def test_the_false_discovery_rate_is_held_and_lesions_are_found() -> None:
    proportions, detected = simulate(120, 0.0, "bh")
    error = proportions.std() / np.sqrt(len(proportions))
    # BH holds q x 90 % = 0.09; four standard errors (about 0.04) either way: neither broken nor idle
    assert 0.09 - 4 * error < proportions.mean() < 0.09 + 4 * error
    assert error < 0.015
    assert detected.mean() > 0.6


def test_the_simulation_sees_a_calibration_that_is_too_low() -> None:
    proportions, _ = simulate(40, -0.7, "bh")
    assert proportions.mean() - 4 * proportions.std() / np.sqrt(40) > 0.1
