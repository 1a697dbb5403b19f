"""Comparisons: closed forms, brute force, clusters, non-inferiority."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from pipeline.errors import ConfigError, EmptySelection
from pipeline.evaluation.compare import Comparison, auroc_covariance, compare, compare_seeds, structural_components
from pipeline.evaluation.config import EvaluationConfig

MakeScores = Callable[..., pd.DataFrame]


def two_models(frame: pd.DataFrame, seed: int = 0, noise: float = 1.0) -> pd.DataFrame:
    return frame.assign(other=frame["score"] + noise * np.random.default_rng(seed).normal(size=len(frame)))


def test_delong_by_hand() -> None:
    # Abnormal 0.8 0.4 0.6, normal 0.1 0.5 0.2: components (1, 2/3, 1) on both sides, AUROC 8/9,
    # sample variance of (1, 2/3, 1) = 1/27, so the variance is 1/27/3 + 1/27/3 = 2/81.
    scores = np.array([[0.8, 0.4, 0.6, 0.1, 0.5, 0.2]])
    abnormal = np.array([True] * 3 + [False] * 3)
    upper, lower = structural_components(scores[0], abnormal)
    assert upper == pytest.approx([1, 2 / 3, 1])
    assert lower == pytest.approx([1, 2 / 3, 1])
    areas, covariance = auroc_covariance(scores, abnormal, np.arange(6))
    assert areas[0] == pytest.approx(8 / 9)
    assert covariance[0, 0] == pytest.approx(2 / 81)


def test_components_equal_brute_force_with_ties() -> None:
    rng = np.random.default_rng(0)
    scores, abnormal = rng.integers(0, 5, 60).astype(float), rng.random(60) < 0.4
    above, below = scores[abnormal][:, None], scores[~abnormal][None]
    wins = (above > below) + 0.5 * (above == below)
    upper, lower = structural_components(scores, abnormal)
    assert upper == pytest.approx(wins.mean(axis=1))
    assert lower == pytest.approx(wins.mean(axis=0))


def test_delong_equals_a_brute_force_jackknife_of_each_class() -> None:
    # AUROC is linear in each class given the other, so leave-one-out pseudo-values are the structural components.
    rng = np.random.default_rng(1)
    abnormal = np.arange(50) < 20
    scores = rng.normal(size=(2, 50)) + abnormal
    whole = np.array([_area(row, abnormal) for row in scores])
    expected = np.zeros((2, 2))
    for members in (np.flatnonzero(abnormal), np.flatnonzero(~abnormal)):
        n = len(members)
        left = [[_area(np.delete(row, i), np.delete(abnormal, i)) for row in scores] for i in members]
        pseudo = n * whole - (n - 1) * np.array(left)
        expected += np.cov(pseudo.T) / n
    assert auroc_covariance(scores, abnormal, np.arange(50))[1] == pytest.approx(expected, rel=1e-9)


def _area(scores: np.ndarray, abnormal: np.ndarray) -> float:
    above, below = scores[abnormal][:, None], scores[~abnormal][None]
    return float(np.mean((above > below) + 0.5 * (above == below)))


def test_obuchowski_of_repeated_units_is_delong_of_single_ones() -> None:
    # Every unit three times within its patient adds no information: the clustered variance must not shrink.
    rng = np.random.default_rng(2)
    abnormal, scores = rng.random(40) < 0.5, rng.normal(size=(2, 40))
    single = auroc_covariance(scores, abnormal, np.arange(40))
    tripled = auroc_covariance(np.repeat(scores, 3, axis=1), np.repeat(abnormal, 3), np.repeat(np.arange(40), 3))
    assert tripled[0] == pytest.approx(single[0])
    assert tripled[1] == pytest.approx(single[1])
    naive = auroc_covariance(np.repeat(scores, 3, axis=1), np.repeat(abnormal, 3), np.arange(120))
    assert naive[1][0, 0] == pytest.approx(single[1][0, 0] / 3, rel=0.1)


def test_obuchowski_agrees_with_the_patient_bootstrap(make_scores: MakeScores) -> None:
    frame = two_models(make_scores(patients=150, units=6, spread=1.5))
    config = EvaluationConfig(stratify=False)
    closed, drawn = compare(frame, "score", "other", config), compare(frame, "score", "other", config, test="bootstrap")
    assert closed.test == "Obuchowski 1997 (units clustered by patient)"
    assert drawn.test == "paired patient bootstrap"
    assert closed.difference == pytest.approx(drawn.difference)
    assert closed.standard_error == pytest.approx(drawn.standard_error, rel=0.12)
    assert (closed.low, closed.high) == pytest.approx((drawn.low, drawn.high), abs=0.006)


def test_the_test_follows_the_clusters(make_scores: MakeScores, quick: EvaluationConfig) -> None:
    assert compare(two_models(make_scores(units=1)), "score", "other", quick).test == "DeLong (independent units)"
    clustered = two_models(make_scores(units=3))
    assert "Obuchowski" in compare(clustered, "score", "other", quick).test
    with pytest.raises(ConfigError, match=r"\b90\b.*\b30\b"):
        compare(clustered, "score", "other", quick, test="delong")


def test_p_value_and_interval_belong_together(make_scores: MakeScores, quick: EvaluationConfig) -> None:
    result = compare(two_models(make_scores(patients=200, units=1)), "score", "other", quick)
    z = result.difference / result.standard_error
    assert result.p_value == pytest.approx(2 * norm.sf(abs(z)))
    assert result.high - result.low == pytest.approx(2 * 1.959964 * result.standard_error)
    assert (result.p_value < 0.05) == (not result.low <= 0 <= result.high)


def test_swapping_the_models_turns_the_sign(make_scores: MakeScores, quick: EvaluationConfig) -> None:
    frame = two_models(make_scores())
    there, back = compare(frame, "score", "other", quick), compare(frame, "other", "score", quick)
    assert there.difference == pytest.approx(-back.difference)
    assert there.p_value == pytest.approx(back.p_value)


def test_a_score_against_itself(make_scores: MakeScores, quick: EvaluationConfig) -> None:
    frame = make_scores().assign(other=lambda f: 2 * f["score"])
    result = compare(frame, "score", "other", quick)
    assert (result.difference, result.standard_error, result.p_value) == (0, 0, 1)
    drawn = compare(frame, "score", "other", quick, test="bootstrap")
    assert (drawn.difference, drawn.p_value) == (0, 1)


def test_non_inferiority(make_scores: MakeScores, quick: EvaluationConfig) -> None:
    frame = two_models(make_scores(patients=300, units=1), noise=0.2)
    near = compare(frame, "other", "score", quick, margin=0.05).non_inferiority
    strict = compare(frame, "other", "score", quick, margin=0.0005).non_inferiority
    assert near.non_inferior and near.p_value < 0.025
    assert not strict.non_inferior and strict.p_value > 0.025
    assert near.lower == strict.lower
    text = compare(frame, "other", "score", quick, margin=0.05, test="bootstrap").sentence
    assert "other is not inferior at a margin of 0.05 (one-sided alpha 0.025" in text
    assert "300 units of 300 patients" in text


def test_the_bound_at_one_sided_2_5_percent_is_the_lower_end_of_the_95_percent_interval(
    make_scores: MakeScores, quick: EvaluationConfig
) -> None:
    frame = two_models(make_scores(patients=20, seed=3), noise=1.0)
    comparison = compare(frame, "other", "score", quick, test="bootstrap", margin=0.05, alpha=0.025)
    assert comparison.non_inferiority.lower == pytest.approx(comparison.low, abs=1e-12)


def test_a_bootstrap_p_value_and_its_interval_belong_together(make_scores: MakeScores) -> None:
    """Sixty small samples: p < 0.05 where the interval excludes 0, p < alpha where not inferior; rounding aside."""
    config, excluded = EvaluationConfig(resamples=1000), 0
    for seed in range(60):
        frame = two_models(make_scores(patients=15, seed=seed, shift=0.8), seed, noise=1.5)
        comparison = compare(frame, "score", "other", config, test="bootstrap", margin=0.02, alpha=0.05)
        excluded += comparison.low > 0 or comparison.high < 0
        if abs(comparison.p_value - 0.05) > 0.005:
            assert (comparison.p_value < 0.05) == (comparison.low > 0 or comparison.high < 0)
        if abs(comparison.non_inferiority.p_value - 0.05) > 0.003:
            assert (comparison.non_inferiority.p_value < 0.05) == comparison.non_inferiority.non_inferior
    assert 10 < excluded < 50


@pytest.mark.parametrize("wrong", [{"margin": 0.0}, {"margin": 1.5}, {"alpha": 0.6}, {"test": "t"}])
def test_wrong_arguments_are_refused(
    make_scores: MakeScores, quick: EvaluationConfig, wrong: dict[str, object]
) -> None:
    with pytest.raises(ConfigError):
        compare(two_models(make_scores(units=1)), "score", "other", quick, **{"margin": 0.05, **wrong})


def test_too_few_patients_of_a_class_are_refused(make_scores: MakeScores, quick: EvaluationConfig) -> None:
    frame = two_models(make_scores(patients=10, units=2))
    frame["label"] = np.where(frame["patient_id"] == "p0003", "abnormal", "normal")
    with pytest.raises(EmptySelection, match=r"\b1\b.*\babnormal\b.*\b9\b.*\bnormal\b"):
        compare(frame, "score", "other", quick)


def test_comparisons_travel_as_json(make_scores: MakeScores, quick: EvaluationConfig) -> None:
    result = compare(two_models(make_scores()), "score", "other", quick, margin=0.1)
    assert Comparison.model_validate_json(result.model_dump_json()) == result


def test_one_training_is_the_paired_patient_bootstrap(make_scores: MakeScores, quick: EvaluationConfig) -> None:
    frame = two_models(make_scores())
    drawn = compare(frame, "score", "other", quick, test="bootstrap")
    assert compare_seeds(frame, "score", ["score"], "other", quick) == drawn


def test_trainings_that_agree_add_no_uncertainty(make_scores: MakeScores, quick: EvaluationConfig) -> None:
    frame = two_models(make_scores()).assign(again=lambda f: f["score"])
    drawn = compare(frame, "score", "other", quick, test="bootstrap")
    meaned = compare_seeds(frame, "model", ["score", "again"], "other", quick)
    assert meaned.model_copy(update={"first": drawn.first, "test": drawn.test}) == drawn
    assert meaned.first == "model" and "of patients and of 2 trainings" in meaned.sentence


def test_trainings_that_disagree_widen_the_interval_as_by_hand(make_scores: MakeScores) -> None:
    # Perfect and inverted scores: 1 and 0 on every resample of the patients, so that the trainings alone vary. The mean
    # of two that are drawn from two is 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4: deviation sqrt(1/8).
    frame = make_scores(patients=60).assign(right=lambda f: (f["label"] == "abnormal") * 1.0, flat=0.0)
    frame = frame.assign(wrong=lambda f: -f["right"])
    comparison = compare_seeds(frame, "model", ["right", "wrong"], "flat", EvaluationConfig(resamples=4000))
    assert (comparison.auroc_first, comparison.auroc_second, comparison.difference) == (0.5, 0.5, 0)
    assert comparison.standard_error == pytest.approx(np.sqrt(1 / 8), rel=0.03)
    assert (comparison.low, comparison.high) == (-0.5, 0.5)
