"""Ranking metrics against scikit-learn, against repeated rows, and against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from pipeline.evaluation.ranking import Curve, Ranking, average_precision, best_dice, roc_area, sensitivity_at


def plain(scores: np.ndarray, abnormal: np.ndarray) -> Curve:
    return Ranking.of(scores, abnormal, np.arange(len(scores))).curve(np.ones((1, len(scores))))


@st.composite
def samples(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores with many ties, labels with both classes, whole weights with both classes present."""
    number = draw(st.integers(2, 40))
    scores = draw(st.lists(st.integers(-5, 5), min_size=number, max_size=number))
    labels = draw(st.lists(st.booleans(), min_size=number, max_size=number))
    weights = draw(st.lists(st.integers(0, 3), min_size=number, max_size=number))
    labels[0], labels[1], weights[0], weights[1] = True, False, max(weights[0], 1), max(weights[1], 1)
    return np.array(scores, float), np.array(labels), np.array(weights)


@given(samples())
@settings(max_examples=60, deadline=None)
def test_metrics_equal_scikit_learn_with_ties(sample: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    scores, abnormal, _ = sample
    curve = plain(scores, abnormal)
    assert roc_area(curve)[0] == pytest.approx(roc_auc_score(abnormal, scores))
    assert average_precision(curve)[0] == pytest.approx(average_precision_score(abnormal, scores))
    fpr, tpr, _ = roc_curve(abnormal, scores, drop_intermediate=False)
    for specificity in (0.5, 0.9, 0.99):
        assert sensitivity_at(curve, specificity)[0] == pytest.approx(tpr[fpr <= 1 - specificity + 1e-9].max())
    flags = [scores >= threshold for threshold in np.unique(scores)]
    dice = max(2 * np.sum(flag & abnormal) / (flag.sum() + abnormal.sum()) for flag in flags)
    assert best_dice(curve)[0] == pytest.approx(dice)


@given(samples())
@settings(max_examples=100, deadline=None)
def test_a_weight_is_a_repeated_patient(sample: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    scores, abnormal, weights = sample
    weighted = Ranking.of(scores, abnormal, np.arange(len(scores))).curve(weights[None].astype(float))
    repeated = plain(np.repeat(scores, weights), np.repeat(abnormal, weights))
    for metric in (roc_area, average_precision, best_dice):
        assert metric(weighted)[0] == pytest.approx(metric(repeated)[0])


@pytest.mark.parametrize("limit", [0.1, 0.3, 0.77])
def test_partial_area_equals_scikit_learn(limit: float) -> None:
    rng = np.random.default_rng(0)
    abnormal = rng.random(300) < 0.3
    scores = np.round(rng.normal(size=300) + abnormal, 1)
    standardised = roc_auc_score(abnormal, scores, max_fpr=limit)  # McClish: 0.5 (1 + (area - least) / (most - least))
    least, most = limit**2 / 2, limit
    area = (2 * standardised - 1) * (most - least) + least
    assert roc_area(plain(scores, abnormal), limit)[0] == pytest.approx(area / limit)


def test_by_hand() -> None:
    # Scores 4 3 2 1, labels + - + -: pairs won 3 of 4; precision 1 and 2/3 at the two recalls of 1/2.
    curve = plain(np.array([4.0, 3.0, 2.0, 1.0]), np.array([True, False, True, False]))
    assert roc_area(curve)[0] == 0.75
    assert average_precision(curve)[0] == pytest.approx((1 + 2 / 3) / 2)
    assert sensitivity_at(curve, 0.9)[0] == 0.5
    assert best_dice(curve)[0] == pytest.approx(2 * 2 / (2 + 1 + 2))


def test_a_row_without_a_class_is_nan_and_leaves_the_others_alone() -> None:
    ranking = Ranking.of(np.array([3.0, 2.0, 1.0]), np.array([True, False, False]), np.arange(3))
    curve = ranking.curve(np.array([[1, 1, 1], [0, 1, 1], [1, 0, 0]], float))
    for metric in (roc_area, average_precision, best_dice, lambda c: sensitivity_at(c, 0.9)):
        value = metric(curve)
        assert value[0] == 1
        assert np.isnan(value[1:]).all()


def test_a_monotone_transform_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    abnormal, scores = rng.random(200) < 0.5, rng.normal(size=200)
    for metric in (roc_area, average_precision, best_dice):
        assert metric(plain(scores, abnormal)) == metric(plain(np.exp(scores) + 7, abnormal))
