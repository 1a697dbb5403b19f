"""Subgroups: every unit in one row of each attribute, small groups said to be small, differences found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.subgroups import subgroup_frame, subgroups
from pipeline.evaluation.table import ScoreTable

MakeScores = Callable[..., pd.DataFrame]


@pytest.fixture
def frame(make_scores: MakeScores) -> pd.DataFrame:
    """60 patients: a third women, three of them with no sex stated; one scanner scores everything higher."""
    frame = make_scores(patients=60, units=4)
    number = frame["patient_id"].str[1:].astype(int)
    frame["sex"] = np.where(number % 3 == 0, "F", "M")
    frame.loc[number >= 57, "sex"] = ""
    frame["scanner"] = np.where(number < 20, "Loud", "Quiet")
    frame.loc[number < 20, "score"] += 3
    frame["site"] = "only one"
    return frame


def test_rows_partition_the_units(frame: pd.DataFrame, quick: EvaluationConfig) -> None:
    rows = subgroups(ScoreTable.from_frame(frame), quick, threshold=2.0)
    assert [(row.attribute, row.value) for row in rows] == [
        ("scanner", "Quiet"), ("scanner", "Loud"), ("sex", "M"), ("sex", "F"), ("sex", "not stated"),
    ]  # fmt: skip
    for attribute in ("scanner", "sex"):
        part = [row for row in rows if row.attribute == attribute]
        assert sum(row.units for row in part) == 240 and sum(row.patients for row in part) == 60
        assert all(row.normal + row.abnormal == row.units for row in part)


def test_figures_of_a_group_are_those_of_its_rows_alone(frame: pd.DataFrame, quick: EvaluationConfig) -> None:
    rows = {(r.attribute, r.value): r for r in subgroups(ScoreTable.from_frame(frame), quick, threshold=2.0)}
    women = frame[frame["sex"] == "F"]
    assert rows["sex", "F"].auroc.value == pytest.approx(roc_auc_score(women["label"] == "abnormal", women["score"]))
    normal = women[women["label"] == "normal"]
    assert rows["sex", "F"].fpr.rate.value == pytest.approx((normal["score"] > 2).mean())


def test_a_loud_scanner_is_seen_in_its_false_positives(frame: pd.DataFrame, quick: EvaluationConfig) -> None:
    rows = {row.value: row for row in subgroups(ScoreTable.from_frame(frame), quick, threshold=2.0)}
    assert rows["Loud"].fpr.rate.low > rows["Quiet"].fpr.rate.high


def test_small_groups_are_listed_as_small(frame: pd.DataFrame, quick: EvaluationConfig) -> None:
    rows = {row.value: row for row in subgroups(ScoreTable.from_frame(frame), quick, threshold=2.0)}
    small = rows["not stated"]
    assert small.auroc is None and small.fpr is None
    assert small.note.startswith("too small: ") and small.note.endswith("normal patients, 5 needed")
    table = subgroup_frame(tuple(rows.values()))
    assert table[table["value"] == "not stated"]["AUROC"].item() == small.note


def test_a_group_of_one_class_and_no_threshold(frame: pd.DataFrame, quick: EvaluationConfig) -> None:
    frame.loc[frame["sex"] == "F", "label"] = "normal"
    rows = {row.value: row for row in subgroups(ScoreTable.from_frame(frame), quick)}
    assert rows["F"].note == "too small: 0 abnormal patients, 5 needed"
    assert rows["M"].fpr is None and rows["M"].auroc is not None


def test_without_attributes_there_are_no_rows(make_scores: MakeScores, quick: EvaluationConfig) -> None:
    assert subgroups(ScoreTable.from_frame(make_scores()), quick) == ()
    assert subgroup_frame(()).empty
