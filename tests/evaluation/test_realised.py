"""Realised false-positive rates and the QQ data of p-values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from pipeline.errors import ConfigError, EmptySelection
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.realised import excess, p_value_quantiles, realised_fpr


def test_clopper_pearson_by_its_closed_forms(quick: EvaluationConfig) -> None:
    # 0 of 10: upper bound 1 - 0.025^(1/10) = 0.3085. 2 of 20: beta quantiles.
    none = realised_fpr(np.zeros(10), np.arange(10), 1.0, quick)
    assert (none.rate.value, none.rate.low) == (0, 0)
    assert none.rate.high == pytest.approx(1 - 0.025**0.1)
    some = realised_fpr(np.arange(20.0), np.arange(20), 17.0, quick)
    assert some.false_positives == 2 and some.method == "Clopper-Pearson"
    assert some.rate.low == pytest.approx(beta.ppf(0.025, 2, 19))
    assert some.rate.high == pytest.approx(beta.ppf(0.975, 3, 18))
    assert some.sentence.startswith("realised false-positive rate 10.0% (1.2% to 31.7%): 2 of 20 normal units of 20")


def test_a_score_at_the_threshold_is_not_flagged(quick: EvaluationConfig) -> None:
    assert realised_fpr(np.array([1.0, 2.0, 3.0]), np.arange(3), 2.0, quick).false_positives == 1


def test_clusters_get_a_patient_bootstrap(quick: EvaluationConfig) -> None:
    # All ten units of two of twenty patients are flagged: as if independent, 20 of 200; in truth, 2 of 20.
    scores = np.repeat(np.arange(20.0), 10)
    clustered = realised_fpr(scores, np.repeat(np.arange(20), 10), 17.0, quick)
    loose = realised_fpr(scores, np.arange(200), 17.0, quick)
    assert clustered.method == "patient bootstrap, since units are clustered"
    assert clustered.rate.value == loose.rate.value == 0.1
    assert clustered.rate.high - clustered.rate.low > 2 * (loose.rate.high - loose.rate.low)


@pytest.mark.parametrize(("threshold", "flagged"), [(99.0, 0), (-1.0, 200)])
def test_no_or_only_false_positives_in_clusters_are_not_certain(
    quick: EvaluationConfig, threshold: float, flagged: int
) -> None:
    scores = np.repeat(np.arange(20.0), 10)
    result = realised_fpr(scores, np.repeat(np.arange(20), 10), threshold, quick)
    assert result.false_positives == flagged
    assert result.rate.high - result.rate.low == pytest.approx(1 - 0.025 ** (1 / 20))
    assert "over patients" in result.method


def test_more_false_alarms_than_exchangeable_normals_give_are_called_out(quick: EvaluationConfig) -> None:
    # n = 19, k = 1: P(all 10 of 10 fresh above the largest of 19) = B(11, 19) / B(1, 19) = 10! 19! / 29! = 5e-8
    def of(count: int, normals: int = 10) -> str:
        scores = np.r_[np.ones(count), np.zeros(normals - count)]
        return excess(realised_fpr(scores, np.arange(normals), 0.5, quick), n=19, k=1)

    assert "probability 5e-08" in of(10) and "differ" in of(10)
    assert of(0) == of(1) == of(2) == ""
    clustered = realised_fpr(np.ones(10), np.arange(10) // 2, 0.5, quick)
    assert excess(clustered, n=19, k=1) == ""


def test_exchangeable_normals_are_hardly_ever_called_different(quick: EvaluationConfig) -> None:
    # 2 000 worlds of 39 calibrating and 100 fresh normals at k = 2: expected calls at most 2; 10 has p < 1e-4.
    rng, calls = np.random.default_rng(5), 0
    for _ in range(2000):
        scores = rng.normal(size=139)
        threshold = np.sort(scores[:39])[-2]
        calls += bool(excess(realised_fpr(scores[39:], np.arange(100), threshold, quick), n=39, k=2))
    assert calls < 10


def test_rates_of_nothing_are_refused(quick: EvaluationConfig) -> None:
    with pytest.raises(EmptySelection, match="no normal"):
        realised_fpr(np.zeros(0), np.zeros(0), 1.0, quick)
    with pytest.raises(EmptySelection, match="at least 2"):
        realised_fpr(np.arange(5.0), np.zeros(5), 2.0, quick)


def test_the_beta_envelope_by_its_closed_form() -> None:
    # Smallest of m uniforms: P(U > x) = (1 - x)^m.
    frame = p_value_quantiles(np.linspace(0.01, 1, 50))
    assert frame["rank"].tolist() == list(range(1, 51))
    assert frame["low"][0] == pytest.approx(1 - 0.975 ** (1 / 50))
    assert frame["high"][0] == pytest.approx(1 - 0.025 ** (1 / 50))
    assert frame["expected"].iloc[-1] == pytest.approx(50 / 51)


@pytest.mark.parametrize("n", [39, 400])
def test_the_conformal_envelope_holds_what_it_says(n: int) -> None:
    # 400 worlds with their own calibration: at each rank about 95 % of the p-values lie inside; standard error 1.1 %.
    rng = np.random.default_rng(0)
    m, inside = 60, []
    for _ in range(400):
        calibration, fresh = np.sort(rng.normal(size=n)), rng.normal(size=m)
        p_values = (1 + n - np.searchsorted(calibration, fresh)) / (n + 1)
        if not inside:
            frame = p_value_quantiles(p_values, n)
        inside.append((np.sort(p_values) >= frame["low"]) & (np.sort(p_values) <= frame["high"]))
    rate = np.mean(inside, axis=0)
    assert rate.min() > 0.91


def test_the_conformal_envelope_tends_to_the_beta() -> None:
    p_values = np.random.default_rng(0).random(100)
    many, limit = p_value_quantiles(p_values, 5_000), p_value_quantiles(p_values)
    assert np.abs(many[["low", "high"]] - limit[["low", "high"]]).to_numpy().max() < 2e-3
    assert p_value_quantiles(p_values, 5_001).equals(limit)
    few = p_value_quantiles(p_values, 50)
    assert ((few["high"] - few["low"]) >= (limit["high"] - limit["low"]) - 0.02).all()


def test_liberal_p_values_leave_the_envelope() -> None:
    p_values = np.random.default_rng(0).random(300) ** 2
    frame = p_value_quantiles(p_values)
    assert (frame["observed"] < frame["low"]).mean() > 0.5


def test_many_p_values_are_thinned_but_the_smallest_are_kept() -> None:
    frame = p_value_quantiles(np.random.default_rng(0).random(10_000))
    assert len(frame) <= 400
    assert frame["rank"].tolist()[:100] == list(range(1, 101)) and frame["rank"].iloc[-1] == 10_000


@pytest.mark.parametrize("bad", [[0.0, 0.5], [0.5, 1.2], [np.nan, 0.5]])
def test_numbers_that_are_no_p_values_are_refused(bad: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"\b1\b.*\(0, 1\]"):
        p_value_quantiles(np.array(bad))


def test_no_p_values_and_no_calibration_are_refused() -> None:
    with pytest.raises(EmptySelection):
        p_value_quantiles(np.zeros(0))
    with pytest.raises(ConfigError, match="n_calibration is 0"):
        p_value_quantiles(np.array([0.5]), 0)
