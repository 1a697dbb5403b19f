"""Cross-fitting's figures: means over folds by hand, intervals that cover, one sign of a control in all folds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import CatalogueError, EmptySelection
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.compare import compare
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.cross_fit import best_control, compare_folds, mean_estimate
from pipeline.evaluation.table import ScoreTable

MakeScores = Callable[..., pd.DataFrame]


def fold_of(make_scores: MakeScores, number: int, noise: float = 1.0, **more: object) -> pd.DataFrame:
    """Return a fold with patients of its own and a second, noisier score."""
    frame = make_scores(seed=number, **more)
    frame = frame.assign(patient_id=f"f{number}" + frame["patient_id"], unit_id=f"f{number}" + frame["unit_id"])
    return frame.assign(other=frame["score"] + noise * np.random.default_rng(number).normal(size=len(frame)))


def small_fold(name: str, scores: list[float]) -> pd.DataFrame:
    """Two abnormal units of two patients, then two normal ones."""
    return pd.DataFrame(
        {
            "unit_id": [f"{name}{i}" for i in range(4)],
            "patient_id": [f"{name}{i}" for i in range(4)],
            "label": ["abnormal", "abnormal", "normal", "normal"],
            "score": scores,
            "other": [1.0, 1.0, 1.0, 1.0],
        }
    )


def test_the_mean_over_folds_by_hand(quick: EvaluationConfig) -> None:
    # First fold ranks 3 of 4 pairs right, the second all; its scores are a thousand times larger, and ranked apart.
    folds = [small_fold("a", [4, 2, 3, 1]), small_fold("b", [4000, 3000, 2000, 1000])]
    comparison = compare_folds(folds, "mine", "score", "other", quick)
    assert (comparison.auroc_first, comparison.auroc_second, comparison.difference) == (0.875, 0.5, 0.375)
    assert (comparison.units, comparison.patients, comparison.first) == (8, 8, "mine")
    assert comparison.test == "paired patient bootstrap within 2 folds"


def test_one_fold_is_the_plain_bootstrap(make_scores: MakeScores, quick: EvaluationConfig) -> None:
    frame = fold_of(make_scores, 0)
    alone, plain = (
        compare_folds([frame], "score", "score", "other", quick),
        compare(frame, "score", "other", quick, test="bootstrap"),
    )
    assert alone.model_dump(exclude={"test"}) == plain.model_dump(exclude={"test"})


def test_variances_of_folds_add(make_scores: MakeScores) -> None:
    config = EvaluationConfig(resamples=2000)
    folds = [fold_of(make_scores, number, patients=40) for number in range(4)]
    errors = [compare(frame, "score", "other", config, test="bootstrap").standard_error for frame in folds]
    comparison = compare_folds(folds, "score", "score", "other", config)
    assert comparison.standard_error == pytest.approx(np.linalg.norm(errors) / 4, rel=0.05)
    alike = [folds[0].assign(patient_id=f"{n}" + folds[0]["patient_id"]) for n in range(4)]
    again = compare_folds(alike, "score", "score", "other", config)
    assert again.standard_error == pytest.approx(errors[0] / 2, rel=0.1)  # resampled apart, or it would be errors[0]


def test_the_interval_covers_the_true_difference(make_scores: MakeScores) -> None:
    """200 benchmarks of 3 folds: 95 % nominal; at 88 % coverage or less this fails with probability above 0.9."""
    config, covered, rounds = EvaluationConfig(resamples=200), 0, 200
    large = [fold_of(make_scores, 10_000 + n, patients=4000) for n in range(3)]
    areas = [[ScoreTable.from_frame(f, (c,)).area(f[c].to_numpy()) for f in large] for c in ("score", "other")]
    truth = float(np.mean(areas[0]) - np.mean(areas[1]))
    for number in range(rounds):
        folds = [fold_of(make_scores, 3 * number + n, patients=15) for n in range(3)]
        comparison = compare_folds(folds, "score", "score", "other", config)
        covered += comparison.low <= truth <= comparison.high
    assert covered >= 0.91 * rounds


def test_a_patient_in_two_folds_is_refused(quick: EvaluationConfig) -> None:
    first, second = small_fold("a", [4, 2, 3, 1]), small_fold("b", [4, 2, 3, 1])
    second.loc[0, "patient_id"] = "a0"
    with pytest.raises(CatalogueError, match=r"\b1\b.*\bfold\b"):
        compare_folds([first, second], "score", "score", "other", quick)
    with pytest.raises(EmptySelection, match=r"\b2\b.*normal\b"):
        compare_folds([first, second.iloc[:2]], "score", "score", "other", quick)


def test_the_mean_of_estimates_by_hand() -> None:
    # arms (0.3, 0.1) and (0.4, 0.0): below sqrt(.09 + .16) / 2 = 0.25, above sqrt(.01) / 2 = 0.05
    folds = [Estimate(value=0.8, low=0.5, high=0.9, resamples=10), Estimate(value=0.6, low=0.2, high=0.6, resamples=8)]
    mean = mean_estimate(folds)
    assert (mean.value, mean.low, mean.high) == pytest.approx((0.7, 0.45, 0.75))
    assert mean.resamples == 8
    assert mean_estimate(folds[:1]) is folds[0]
    open_ended = mean_estimate([folds[0], Estimate(value=0.6)])
    assert (open_ended.value, open_ended.low) == (pytest.approx(0.7), None)
    assert open_ended.note == "1 of 2 folds have no interval"


def test_a_control_has_one_sign_in_all_folds() -> None:
    """Turned fold by fold a coin would beat 0.5; here `coin` is 1 and 0, mean 0.5, and `low` is 0 and 0.25."""
    folds = [small_fold("a", [0, 0, 0, 0]), small_fold("b", [0, 0, 0, 0])]
    folds[0] = folds[0].assign(coin=[4, 3, 2, 1], low=[1, 2, 3, 4])
    folds[1] = folds[1].assign(coin=[1, 2, 3, 4], low=[1, 3, 2, 4])
    tables = [ScoreTable.from_frame(frame) for frame in folds]
    assert best_control(tables, ("coin", "low")) == ("low", -1)
    assert best_control(tables, ("coin",)) == ("coin", 1)
