"""Decisions become labels; a dismissed flag adds no training data, a normal scan of the blinded sample does."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, update

from pipeline.config import ReviewPolicy
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import LabelRow, Patient
from pipeline.data.labels.labels import add_label
from pipeline.data.labels.review_labels import DISMISSED_FLAG, REVIEW
from pipeline.data.sets.selection import slices
from pipeline.data.sets.splits import SplitPolicy, assign_sets
from pipeline.review.services import Review
from pipeline.types import LABELLED_SETS, NORMAL_SETS

EVERY_SET = (*NORMAL_SETS, *LABELLED_SETS)
TRAIN = SplitPolicy(normals={"train": 0.5, "calibrate": 0.5}, others={"develop": 1.0})


@pytest.fixture
def night(nights: Any) -> dict[str, int]:
    """Flagged: f, g. On the list by lot: s, t. Every one of the four unflagged is drawn."""
    nights.scans("fgst")
    nights.score({"f": 0.01, "g": 0.02, "s": 0.5, "t": 0.6}, policy=ReviewPolicy(sample_share=1))
    return {name: nights.finding(name) for name in "fgst"}


def labels(catalogue: Catalogue, study: str) -> list[tuple[str, str]]:
    with catalogue.reading() as session:
        rows = session.scalars(select(LabelRow).where(LabelRow.subject == study).order_by(LabelRow.id))
        return [(row.label, row.source) for row in rows]


def usable(catalogue: Catalogue, name_of: Any, name: str) -> bool:
    return any(ref.study_id == name_of("study", name) for ref in slices(catalogue, sets=EVERY_SET))


def test_only_the_lot_and_confirmed_scans_get_a_set(
    review: Review, night: dict[str, int], people: Any, form: Any, catalogue: Catalogue, name_of: Any
) -> None:
    for name, outcome in {"f": "dismissed", "g": "confirmed", "s": "dismissed", "t": "confirmed"}.items():
        review.decisions.decide(form(night[name], outcome), people["ann"])
    assert labels(catalogue, name_of("study", "f")) == [("normal", DISMISSED_FLAG)]
    assert labels(catalogue, name_of("study", "g")) == [("abnormal", REVIEW)]
    assert labels(catalogue, name_of("study", "s")) == [("normal", REVIEW)]
    assign_sets(catalogue, TRAIN)
    with catalogue.reading() as session:
        set_of = dict(session.execute(select(Patient.patient_id, Patient.set_name)).all())
    sets = {name: set_of[name_of("patient", name)] for name in "fgst"}
    assert sets["f"] is None
    assert sets["s"] in ("train", "calibrate")
    assert sets["g"] == sets["t"] == "develop"
    assert [usable(catalogue, name_of, name) for name in "fgst"] == [False, True, True, True]


@pytest.mark.parametrize("set_name", EVERY_SET)
def test_a_dismissed_flag_of_a_patient_with_a_set_is_not_used_there(
    review: Review, night: Any, people: Any, form: Any, catalogue: Catalogue, name_of: Any, set_name: str
) -> None:
    """A new scan of a patient of the train, validate or test set: by its own label it would slip in."""
    review.decisions.decide(form(night["f"], "dismissed"), people["ann"])
    review.decisions.decide(form(night["s"], "dismissed"), people["ann"])
    with catalogue.session() as session:
        session.execute(update(Patient).values(set_name=set_name))
    assert not usable(catalogue, name_of, "f") and usable(catalogue, name_of, "s")


def test_a_report_that_says_normal_counts_beside_a_dismissed_flag(
    review: Review, night: Any, people: Any, form: Any, catalogue: Catalogue, name_of: Any
) -> None:
    with catalogue.session() as session:
        add_label(session, "patient", name_of("patient", "f"), "normal", source="report")
    review.decisions.decide(form(night["f"], "dismissed"), people["ann"])
    assign_sets(catalogue, TRAIN)
    assert usable(catalogue, name_of, "f")


def test_a_changed_mind_and_an_undo_change_the_label(
    review: Review, night: Any, people: Any, form: Any, catalogue: Catalogue, name_of: Any
) -> None:
    study = name_of("study", "f")
    with catalogue.session() as session:
        add_label(session, "study", study, "abnormal", source="report")
    first = review.decisions.decide(form(night["f"], "dismissed"), people["ann"])
    second = review.decisions.decide(form(night["f"], "unsure", seen=first.id), people["ann"])
    assert labels(catalogue, study)[-1] == ("abnormal", "report")
    third = review.decisions.decide(form(night["f"], "confirmed", seen=second.id), people["ann"])
    assert labels(catalogue, study)[-1] == ("abnormal", REVIEW)
    review.decisions.undo(night["f"], third.id, "undo-third", people["ann"])
    assert labels(catalogue, study)[-1] == ("abnormal", "report")
    alone = review.decisions.decide(form(night["s"], "dismissed"), people["ann"])
    review.decisions.undo(night["s"], alone.id, "undo-alone", people["ann"])
    assert labels(catalogue, name_of("study", "s")) == [("normal", REVIEW), ("unknown", REVIEW)]


def test_a_study_with_two_findings_is_abnormal_where_one_is(
    nights: Any, review: Review, people: Any, form: Any, catalogue: Catalogue, name_of: Any
) -> None:
    from pipeline.data.catalogue.schema import FindingRow

    nights.scans("x")
    for model in ("a" * 64, "b" * 64):
        nights.score({"x": 0.01}, model=model)
    with catalogue.reading() as session:
        first, second = session.scalars(select(FindingRow.id).order_by(FindingRow.id)).all()
    review.decisions.decide(form(first, "confirmed"), people["ann"])
    review.decisions.decide(form(second, "dismissed"), people["ben"])
    assert labels(catalogue, name_of("study", "x")) == [("abnormal", REVIEW)]
    review.decisions.undo(first, review.worklist.read_row(first).decision_id, "undo-first", people["ann"])
    assert labels(catalogue, name_of("study", "x"))[-1] == ("normal", DISMISSED_FLAG)
