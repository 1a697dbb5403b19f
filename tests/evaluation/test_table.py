"""Tables that evaluation refuses: every refusal raises our own exception and says what to do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import ConfigError, EmptySelection
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.table import ScoreTable, select_central

MakeScores = Callable[..., pd.DataFrame]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, None, "high"])
@pytest.mark.parametrize("column", ["score", "control:noise"])
def test_a_score_that_is_not_a_number_is_refused(make_scores: MakeScores, bad: object, column: str) -> None:
    frame = make_scores()
    frame["control:noise"] = 0.5
    frame[column] = frame[column].astype(object)
    frame.loc[3, column] = bad
    with pytest.raises(ConfigError, match=rf"\b1 of {len(frame)}\b.*\b{column}\b"):
        ScoreTable.from_frame(frame)


@pytest.mark.parametrize("label", ["unknown", "", "tumour", None, 1])
def test_an_unknown_label_is_refused(make_scores: MakeScores, label: object) -> None:
    frame = make_scores()
    frame["label"] = frame["label"].astype(object)
    frame.loc[0, "label"] = label
    with pytest.raises(ConfigError, match=rf"\b1 of {len(frame)}\b.*{str(label)!r}"):
        ScoreTable.from_frame(frame)


@pytest.mark.parametrize("label", ["normal", "abnormal"])
def test_one_class_only_is_refused(make_scores: MakeScores, label: str) -> None:
    with pytest.raises(EmptySelection, match=rf"\b120\b.*\b{label}\b"):
        ScoreTable.from_frame(make_scores().assign(label=label))


def test_a_single_patient_is_refused(make_scores: MakeScores) -> None:
    with pytest.raises(EmptySelection, match="single patient"):
        ScoreTable.from_frame(make_scores(patients=1, units=40))


def test_an_empty_table_is_refused(make_scores: MakeScores) -> None:
    with pytest.raises(EmptySelection, match="empty"):
        ScoreTable.from_frame(make_scores().iloc[:0])


@pytest.mark.parametrize("column", ["unit_id", "patient_id", "label", "score"])
def test_a_missing_column_is_named(make_scores: MakeScores, column: str) -> None:
    with pytest.raises(ConfigError, match=column):
        ScoreTable.from_frame(make_scores().drop(columns=column))


@pytest.mark.parametrize("patient", [None, np.nan, ""])
def test_a_unit_without_a_patient_is_refused(make_scores: MakeScores, patient: object) -> None:
    frame = make_scores()
    frame["patient_id"] = frame["patient_id"].astype(object)
    frame.loc[:1, "patient_id"] = patient
    with pytest.raises(ConfigError, match=r"\b2\b.*patient_id"):
        ScoreTable.from_frame(frame)


def test_a_unit_that_is_listed_twice_is_refused(make_scores: MakeScores) -> None:
    frame = make_scores()
    with pytest.raises(ConfigError, match=r"\b1\b.*unit_id"):
        ScoreTable.from_frame(pd.concat([frame, frame.iloc[:1]]))


def test_an_unknown_unit_is_refused(make_scores: MakeScores) -> None:
    with pytest.raises(ConfigError, match="'voxel'"):
        ScoreTable.from_frame(make_scores(), unit="voxel")


def test_central_subset_needs_positions(make_scores: MakeScores) -> None:
    with pytest.raises(ConfigError, match="relative_position"):
        select_central(make_scores(), EvaluationConfig())
    with pytest.raises(EmptySelection, match=r"\b120\b.*relative_position"):
        select_central(make_scores(relative_position=0.9), EvaluationConfig())


def test_patients_are_numbered_by_id_and_clusters_are_seen(make_scores: MakeScores) -> None:
    frame = make_scores(patients=3, units=10).iloc[::-1]
    table = ScoreTable.from_frame(frame)
    assert table.patient.tolist() == [2] * 10 + [1] * 10 + [0] * 10
    assert table.clustered and table.patients == 3
    assert not ScoreTable.from_frame(make_scores(units=1)).clustered


@pytest.mark.parametrize(
    "field", [{"specificities": ()}, {"specificities": (1.0,)}, {"central": (0.7, 0.3)}, {"seed": -1}]
)
def test_configurations_out_of_range_are_refused(field: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        EvaluationConfig(**field)
