"""Image-level tables: negative controls, verdicts, names of levels, notes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.metrics import evaluate_images, metric_names
from pipeline.evaluation.results import ResultTable
from pipeline.evaluation.table import ScoreTable, select_central

MakeScores = Callable[..., pd.DataFrame]


def outcome(result: ResultTable, control: str) -> str:
    return {verdict.control: verdict.outcome for verdict in result.verdicts}[control]


def test_shuffled_labels_give_a_half_within_the_interval(make_scores: MakeScores, quick: EvaluationConfig) -> None:
    frame = make_scores(patients=60, shift=3.0, spread=0.0)
    auroc = evaluate_images(frame, quick).row("score").metrics["AUROC"]
    assert auroc.value > 0.95
    missed = 0
    for seed in range(20):  # 95 % intervals: more than 4 misses of 20 has a probability below 0.003
        frame["label"] = np.random.default_rng(seed).permutation(frame["label"].to_numpy())
        blind = evaluate_images(frame, quick).row("score").metrics["AUROC"]
        missed += not blind.low <= 0.5 <= blind.high
    assert missed <= 4


def test_a_score_equal_to_a_control_ties(make_scores: MakeScores, quick: EvaluationConfig) -> None:
    frame = make_scores()
    frame["control:copy"] = 3 * frame["score"] + 1
    result = evaluate_images(frame, quick)
    assert outcome(result, "copy") == "ties with"
    assert result.row("copy").metrics == result.row("score").metrics


def test_a_model_that_loses_says_so(make_scores: MakeScores, quick: EvaluationConfig) -> None:
    frame = make_scores(patients=60, shift=0.3)
    frame["control:position"] = np.where(frame["label"] == "abnormal", 5.0, 0.0) + frame["score"]
    frame["control:noise"] = np.random.default_rng(9).normal(size=len(frame))
    result = evaluate_images(frame, quick)
    assert outcome(result, "position") == "loses to"
    sentence = next(v.sentence for v in result.verdicts if v.control == "position")
    assert sentence.startswith("score loses to the control position: AUROC difference -")
    assert "paired patient bootstrap" in sentence


def test_a_control_below_a_half_is_judged_by_its_better_side_too(
    make_scores: MakeScores, quick: EvaluationConfig
) -> None:
    frame = make_scores(patients=60, shift=0.5)
    frame["control:energy"] = -np.where(frame["label"] == "abnormal", 4.0, 0.0) + frame["score"]
    result = evaluate_images(frame, quick)
    upright, turned = (result.row(name).metrics["AUROC"].value for name in ("energy", "negative energy"))
    assert upright + turned == pytest.approx(1)
    assert outcome(result, "energy") == "beats"
    assert outcome(result, "negative energy") == "loses to"


def test_overlapping_intervals_do_not_hide_a_paired_difference(
    make_scores: MakeScores, quick: EvaluationConfig
) -> None:
    # The control is the score with abnormal units 0.15 lower: the intervals overlap widely, the difference is certain.
    frame = make_scores(patients=100, shift=1.0)
    frame["control:blurred"] = frame["score"] - 0.15 * (frame["label"] == "abnormal")
    result = evaluate_images(frame, quick)
    assert result.row("blurred").metrics["AUROC"].high > result.row("score").metrics["AUROC"].low
    assert outcome(result, "blurred") == "beats"


def test_row_order_and_patient_names_do_not_matter(make_scores: MakeScores, quick: EvaluationConfig) -> None:
    frame = make_scores()
    shuffled = frame.sample(frac=1, random_state=0)
    assert evaluate_images(shuffled, quick) == evaluate_images(frame, quick)


def test_levels_are_named(make_scores: MakeScores, quick: EvaluationConfig) -> None:
    assert evaluate_images(make_scores(), quick).level == "slice level"
    assert evaluate_images(make_scores(units=1), quick, unit="study").level == "study level"
    wrapped = make_scores(units=1, image_is_subject=True)
    assert evaluate_images(wrapped, quick).level == "image level"
    wrapped.loc[0, "image_is_subject"] = False
    assert evaluate_images(wrapped, quick).level == "slice level"


def test_counts_and_names(make_scores: MakeScores) -> None:
    config = EvaluationConfig(resamples=100, specificities=(0.995, 0.9))
    frame = make_scores(patients=10)
    result = evaluate_images(frame, config)
    abnormal = int((frame["label"] == "abnormal").sum())
    assert result.counts["units"] == 40 and result.counts["abnormal"] == abnormal and result.counts["patients"] == 10
    assert metric_names(config) == ["AUROC", "AP", "sens@90", "sens@99.5"] == list(result.rows[0].metrics)
    assert "95% patient bootstrap (BCa, 100 resamples of 10 patients" in result.interval
    assert any("precise specificity of 99.5 %" in note for note in result.notes)


def test_perfect_separation_is_not_sold_as_certainty(make_scores: MakeScores, quick: EvaluationConfig) -> None:
    result = evaluate_images(make_scores(shift=50.0), quick)
    assert result.row("score").metrics["AUROC"].value == 1
    assert any("does not mean certainty" in note for note in result.notes)


def test_clustered_units_widen_the_interval(make_scores: MakeScores) -> None:
    # The same units, once grouped by patient (strong patient effect, one class per patient) and once as if independent.
    frame = make_scores(patients=40, units=10, spread=2.0)
    frame["label"] = np.where(frame["patient_id"] < "p0020", "normal", "abnormal")
    config = EvaluationConfig(resamples=1000)
    grouped = evaluate_images(frame, config).row("score").metrics["AUROC"]
    loose = evaluate_images(frame.assign(patient_id=frame["unit_id"]), config).row("score").metrics["AUROC"]
    assert grouped.high - grouped.low > 2 * (loose.high - loose.low)


def test_central_subset_is_open_at_both_ends(make_scores: MakeScores, quick: EvaluationConfig) -> None:
    frame = make_scores(patients=30, units=5, relative_position=[0.0, 0.3, 0.5, 0.7, 1.0] * 30)
    inside = select_central(frame, quick)
    assert set(inside["relative_position"]) == {0.5}
    assert evaluate_images(inside, quick, title="central").counts["units"] == 30


def test_results_travel_as_json(make_scores: MakeScores, quick: EvaluationConfig) -> None:
    frame = make_scores()
    frame["control:noise"] = np.random.default_rng(0).normal(size=len(frame))
    result = evaluate_images(frame, quick)
    assert ResultTable.model_validate_json(result.model_dump_json()) == result


def test_thousands_of_rows_take_seconds(make_scores: MakeScores) -> None:
    # 2 000 resamples of 2 000 rows x 15 columns: about 3 s of processor time on one quiet core.
    import time

    frame = make_scores(patients=100, units=20)
    for index in range(14):
        frame[f"control:c{index}"] = np.random.default_rng(index).normal(size=len(frame)) + 0.1 * frame["score"]
    start = time.process_time()
    result = evaluate_images(frame, EvaluationConfig())
    assert len(result.rows) >= 15
    assert time.process_time() - start < 40
    assert ScoreTable.from_frame(frame).clustered
