"""The patient bootstrap: whole patients, reproducible, honest, and equal to scipy's where they overlap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap

from pipeline.errors import EmptySelection
from pipeline.evaluation.bootstrap import Estimate, PatientBootstrap, bca_levels, bca_tails
from pipeline.evaluation.config import EvaluationConfig


def mean_of(values: np.ndarray) -> object:
    return lambda weights: ((weights @ values) / weights.sum(axis=1))[:, None]


def test_strata_keep_their_number_of_patients() -> None:
    strata = np.array([0] * 7 + [1] * 5)
    drawn = PatientBootstrap.draw(strata, EvaluationConfig(resamples=200))
    assert (drawn.weights[:, strata == 0].sum(axis=1) == 7).all()
    assert (drawn.weights[:, strata == 1].sum(axis=1) == 5).all()
    assert "stratified by" in drawn.scheme and "12 patients" in drawn.scheme and "BCa" in drawn.scheme


def test_a_stratum_of_one_patient_is_not_kept_fixed() -> None:
    drawn = PatientBootstrap.draw(np.array([0, 0, 0, 1]), EvaluationConfig(resamples=400))
    assert "not stratified" in drawn.scheme
    assert set(np.unique(drawn.weights[:, 3])) >= {0, 1, 2}


def test_same_seed_same_resamples_another_seed_others() -> None:
    strata = np.zeros(20, int)
    first, again, other = (PatientBootstrap.draw(strata, EvaluationConfig(seed=s)).weights for s in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_every_patient_is_drawn_equally_often() -> None:
    # 2 000 resamples of 10: mean weight 1, standard error sqrt(0.9 / 2000) = 0.021; five of them is a generous bound.
    weights = PatientBootstrap.draw(np.zeros(10, int), EvaluationConfig()).weights
    assert np.abs(weights.mean(axis=0) - 1).max() < 0.11
    assert (weights.sum(axis=1) == 10).all()


@pytest.mark.parametrize("patients", [0, 1])
def test_one_patient_is_refused(patients: int) -> None:
    with pytest.raises(EmptySelection, match="at least 2"):
        PatientBootstrap.draw(np.zeros(patients, int), EvaluationConfig())


def test_bca_agrees_with_scipy_on_a_skewed_mean() -> None:
    values = np.random.default_rng(2).exponential(size=40)
    drawn = PatientBootstrap.draw(np.zeros(40, int), EvaluationConfig(resamples=20_000))
    (ours,) = drawn.estimates(drawn.sample(mean_of(values), 40))
    theirs = scipy_bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=0).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.015)
    assert ours.high == pytest.approx(theirs.high, abs=0.015)


@pytest.mark.parametrize("alpha", [0.005, 0.025, 0.2, 0.5])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_p_value_is_the_level_whose_bound_lies_at_the_threshold(alpha: float, sign: int) -> None:
    """Of a skewed mean, where plain percentiles are off: the bound at `alpha` has the p-value `alpha`, both ways."""
    values = sign * np.random.default_rng(2).exponential(size=40)
    sampled = (drawn := PatientBootstrap.draw(np.zeros(40, int), EvaluationConfig(resamples=20_000))).sample(
        mean_of(values), 40
    )
    bca_inputs = (float(values.mean()), sampled.replicates[:, 0], sampled.jackknife[:, 0])
    low, high = np.quantile(bca_inputs[1], bca_levels(*bca_inputs, 1 - 2 * alpha))
    assert bca_tails(*bca_inputs, low)[0] == pytest.approx(alpha, abs=3e-4)
    assert bca_tails(*bca_inputs, high)[1] == pytest.approx(alpha, abs=3e-4)
    if alpha == 0.025:
        assert (
            abs(np.mean(bca_inputs[1] <= low) - alpha) > 0.005
        )  # the share of replicates alone would say something else
    assert drawn.confidence == 0.95


def test_p_values_of_hopeless_thresholds_are_small_and_never_zero() -> None:
    values = np.random.default_rng(3).normal(size=30)
    sampled = PatientBootstrap.draw(np.zeros(30, int), EvaluationConfig(resamples=500)).sample(mean_of(values), 30)
    bca_inputs = (float(values.mean()), sampled.replicates[:, 0], sampled.jackknife[:, 0])
    below, above = bca_tails(*bca_inputs, -9.0), bca_tails(*bca_inputs, 9.0)
    assert 1 / 502 <= below[0] < 0.01 and below[1] > 0.99  # bias and acceleration move it by a little
    assert 1 / 502 <= above[1] < 0.01 and above[0] > 0.99
    flat = (0.0, np.zeros(500), np.zeros(30))
    assert min(bca_tails(*flat, 0.0)) > 0.99


def test_grouped_jackknife_gives_nearly_the_same_acceleration() -> None:
    values = np.random.default_rng(2).exponential(size=1000) ** 2
    drawn = PatientBootstrap.draw(np.zeros(1000, int), EvaluationConfig(resamples=4000))
    sampled = drawn.sample(mean_of(values), 1000)
    single = (values.sum() - values) / 999
    assert len(sampled.jackknife) == 200
    grouped = bca_levels(values.mean(), sampled.replicates[:, 0], sampled.jackknife[:, 0], 0.95)
    whole = bca_levels(values.mean(), sampled.replicates[:, 0], single, 0.95)
    assert grouped == pytest.approx(whole, abs=0.01)


def test_degenerate_resamples_are_counted_and_half_of_them_end_the_interval() -> None:
    drawn = PatientBootstrap.draw(np.zeros(6, int), EvaluationConfig(resamples=1000))

    def without(patients: int) -> Estimate:
        def statistic(weights: np.ndarray) -> np.ndarray:
            lacks = (weights[:, :patients] == 0).all(axis=1)
            return np.where(lacks, np.nan, weights[:, 0] + 0.1)[:, None]

        return drawn.estimates(drawn.sample(statistic, 6))[0]

    some, many = without(2), without(1)
    # (4/6)^6 = 0.088 of the resamples lack both patients, (5/6)^6 = 0.335 lack the first.
    assert 50 < some.degenerate < 130 and some.low is not None
    assert 270 < many.degenerate < 400
    rare = drawn.estimates(drawn.sample(lambda w: np.where(w[:, [0]] != 1, np.nan, 1.0), 6))[0]
    assert rare.low is None and "lacked a class" in rare.note
    assert rare.text() == "1.000 (no interval)"


def test_an_interval_without_width_says_so() -> None:
    drawn = PatientBootstrap.draw(np.zeros(5, int), EvaluationConfig())
    (estimate,) = drawn.estimates(drawn.sample(lambda w: np.ones((len(w), 1)), 5))
    assert (estimate.low, estimate.high) == (1, 1)
    assert "does not mean certainty" in estimate.note


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=9)
    drawn = PatientBootstrap.draw(np.zeros(9, int), EvaluationConfig(resamples=100))
    whole = drawn.sample(mean_of(values), 9)
    monkeypatch.setattr("pipeline.evaluation.bootstrap.CELLS_AT_ONCE", 20)
    assert np.allclose(whole.replicates, drawn.sample(mean_of(values), 9).replicates)


def test_estimates_travel_as_json() -> None:
    estimate = Estimate(value=0.8, low=0.7, high=0.9, resamples=10)
    assert Estimate.model_validate_json(estimate.model_dump_json()) == estimate
    assert estimate.text() == "0.800 (0.700 to 0.900)"
