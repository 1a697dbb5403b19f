"""A study that two models have listed is blind or revealed as a whole, and its decisions know of both rows."""

from __future__ import annotations

import itertools
import re
from datetime import timedelta
from typing import Any

import pytest

from pipeline.config import ReviewPolicy
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.effective_decision import read_what_readers_said
from pipeline.data.catalogue.review_schema import Decision, ReadingEntry
from pipeline.data.catalogue.schema import RunRow, now
from pipeline.review.refusals import HeldByAnother, NotAllowed, StaleDecision
from pipeline.review.services import Review
from pipeline.review.worklist import STATES, WorklistQuery

MODELS = ("a" * 64, "b" * 64)
_tokens = (f"token-{number:04}" for number in itertools.count())


@pytest.fixture
def twice(nights: Any, catalogue: Catalogue, name_of: Any) -> tuple[int, int]:
    """One study with a row of each of two models, as after a promotion."""
    nights.scans("a")
    for model in MODELS:
        nights.score({"a": 0.01}, model=model)
    return rows_of(catalogue)


def rows_of(catalogue: Catalogue) -> tuple[int, ...]:
    rows = sorted(catalogue.list_findings(), key=lambda row: row.model_sha256)
    return tuple(row.id for row in rows)


def blind(catalogue: Catalogue) -> list[bool]:
    with catalogue.reading() as session:
        return [row.blind for row in session.query(Decision).order_by(Decision.id) if row.withdraws is None]


def undo(review: Review, number: int, actor: Any) -> None:
    review.decisions.undo(number, review.worklist.read_row(number).decision_id, next(_tokens), actor)


def test_no_row_shows_a_result_before_all_are_decided(
    review: Review, twice: tuple[int, int], people: Any, form: Any, catalogue: Catalogue
) -> None:
    first, second = twice
    review.decisions.decide(form(first), people["ann"])
    rows = {row.finding_id: row for row in review.worklist.read_page(WorklistQuery()).rows}
    for number in twice:
        for row in (rows[number], review.worklist.read_row(number)):
            assert (row.revealed, row.words, row.p_value, row.score) == (False, None, None, None)
        assert not review.first_looks.has_ended(number, people["ann"])
    assert len(review.worklist.list_blind_runs()) == 2, "the count of the first run tells of the second"
    assert review.worklist.list_other_rows(second) == [(first, True)]
    review.decisions.decide(form(second), people["ben"])
    assert all(review.worklist.read_row(number).revealed for number in twice)
    assert all(review.first_looks.has_ended(number, people["lea"]) for number in twice)
    assert review.worklist.list_blind_runs() == frozenset()
    assert blind(catalogue) == [True, True], "nobody was shown anything before the second decision"


def test_a_study_that_was_revealed_before_is_not_decided_blind(
    review: Review, nights: Any, people: Any, form: Any, catalogue: Catalogue
) -> None:
    """The first model's row is decided and shown; then the second model lists the study."""
    nights.scans("a")
    nights.score({"a": 0.01}, model=MODELS[0])
    (first,) = rows_of(catalogue)
    with catalogue.session() as session:
        session.get(ReadingEntry, first).listed_at -= timedelta(hours=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.review.decisions.now", lambda: now() - timedelta(hours=1))
        review.decisions.decide(form(first, "unsure"), people["ann"])
    assert review.worklist.read_row(first).revealed
    nights.score({"a": 0.01}, model=MODELS[1])
    _, second = rows_of(catalogue)
    assert not review.worklist.read_row(first).revealed, "ben has not seen it yet"
    review.decisions.decide(form(second), people["ben"])
    assert blind(catalogue) == [True, False]
    with catalogue.reading() as session:
        (said,) = read_what_readers_said(session, [second])[second]
    assert (said.blind, said.heatmap) == (False, True), "ben may have looked at the first row while it was shown"


def test_a_row_without_blinding_reveals_the_study(
    review: Review, nights: Any, people: Any, form: Any, catalogue: Catalogue
) -> None:
    nights.scans("a")
    nights.score({"a": 0.01}, model=MODELS[0], policy=ReviewPolicy(sample_share=0, sample_least=0))
    nights.score({"a": 0.01}, model=MODELS[1])
    first, second = rows_of(catalogue)
    assert [review.worklist.read_row(number).revealed for number in (first, second)] == [False, False]
    review.decisions.decide(form(second), people["ann"])
    assert blind(catalogue) == [False], "the first row had shown its p-value"


def test_the_heatmap_of_one_row_ends_the_first_look_of_both(
    review: Review, twice: tuple[int, int], people: Any, form: Any, catalogue: Catalogue
) -> None:
    first, second = twice
    review.first_looks.end(first, "unsure", people["ann"])
    review.first_looks.end(second, "confirmed", people["ann"])
    assert [review.first_looks.has_ended(number, people["ann"]) for number in twice] == [True, True]
    assert not review.first_looks.has_ended(second, people["ben"]), "each reader has a first look of their own"
    review.decisions.decide(form(second, "dismissed"), people["ann"])
    review.decisions.decide(form(first, "dismissed"), people["ben"])
    with catalogue.reading() as session:
        said = read_what_readers_said(session)
    assert [(one.heatmap, one.first_look) for one in said[second]] == [(True, "unsure")]
    assert [(one.heatmap, one.first_look) for one in said[first]] == [(False, "")]
    assert [one.heatmap for one in review.decisions.read_history(second, people["ann"])] == [True]
    entries = review.audit.list_entries(action="heatmap")
    assert [(one.subject, one.detail) for one in entries] == [(f"finding:{first}", {"first_look": "unsure"})]


def test_a_withdrawal_hides_both_rows_again_and_is_remembered(
    review: Review, twice: tuple[int, int], people: Any, form: Any, catalogue: Catalogue
) -> None:
    first, second = twice
    for number in twice:
        review.decisions.decide(form(number), people["ann"])
    undo(review, first, people["ann"])
    assert not any(review.worklist.read_row(number).revealed for number in twice)
    seen = review.worklist.read_row(first).decision_id
    review.decisions.decide(form(first, "dismissed", seen=seen), people["ben"])
    assert blind(catalogue) == [True, True, False]
    undo(review, second, people["ann"])
    assert not any(review.first_looks.has_ended(number, people["ben"]) for number in twice)


def test_decisions_on_scans_that_were_erased_from_the_list_still_count(
    review: Review, twice: tuple[int, int], people: Any, form: Any, catalogue: Catalogue
) -> None:
    done = review.decisions.decide(form(twice[0]), people["ann"])
    review.decisions.decide(form(twice[0], "dismissed", seen=done.id), people["ben"])
    with catalogue.session() as session:
        session.query(ReadingEntry).delete()
    with catalogue.reading() as session:
        said = read_what_readers_said(session)[twice[0]]
    assert [(one.reader, one.outcome, one.heatmap) for one in said] == [
        ("ann", "confirmed", False),
        ("ben", "dismissed", True),
    ]


def test_a_second_opinion_on_one_row_is_independent_of_the_other(
    review: Review, twice: tuple[int, int], people: Any, form: Any
) -> None:
    first, second = twice
    review.decisions.decide(form(first, "confirmed", comment="a mass"), people["ann"])
    review.decisions.decide(form(second, "second-opinion"), people["ann"])
    assert review.decisions.read_history(first, people["ben"]) == []
    undo(review, first, people["ann"])
    with pytest.raises(HeldByAnother, match="another reader"):
        seen = review.worklist.read_row(first).decision_id
        review.decisions.decide(form(first, seen=seen), people["ann"])


UNSAMPLED = ReviewPolicy(sample_share=0, sample_least=0)


def test_a_run_that_scored_a_hidden_study_without_listing_it_is_hidden(
    review: Review, nights: Any, people: Any, form: Any, catalogue: Catalogue
) -> None:
    """The champion did not list the study, and the model that was promoted lists it: each run's count would tell."""
    nights.scans("ab")
    other = nights.score({"b": 0.5}, model=MODELS[0], policy=UNSAMPLED)
    with catalogue.session() as session:
        session.get(RunRow, other).started_at -= timedelta(hours=1)
    quiet = nights.score({"a": 0.0612}, model=MODELS[0], policy=UNSAMPLED)
    assert review.worklist.list_blind_runs() == frozenset()
    listing = nights.score({"a": 0.01}, model=MODELS[1])
    assert review.worklist.list_blind_runs() == {quiet, listing}
    (row,) = review.worklist.read_page(WorklistQuery()).rows
    review.decisions.decide(form(row.finding_id), people["ann"])
    assert review.worklist.list_blind_runs() == frozenset()


def test_a_run_whose_finding_moved_to_a_later_run_is_hidden_with_it(
    review: Review, nights: Any, people: Any, form: Any
) -> None:
    """A study that is scored again belongs to the later run, while the counts of the earlier ones still include it."""
    nights.scans("a")
    runs = {nights.score({"a": p}) for p in (0.01, 0.02, 0.03)}
    assert runs <= review.worklist.list_blind_runs()
    review.decisions.decide(form(nights.finding("a")), people["ann"])
    assert not runs & review.worklist.list_blind_runs()


def states_as_seen(review: Review, numbers: tuple[int, ...], viewer: str) -> dict[str, set[int]]:
    """Return which of the rows each state lists for a reader, where the counts and each row's own page agree."""
    seen = {}
    counts = review.worklist.count_states(WorklistQuery(viewer=viewer))
    for state in STATES:
        query = WorklistQuery(states=frozenset({state}), viewer=viewer)
        rows = review.worklist.read_page(query).rows
        assert counts[state] == len(rows) and {row.state for row in rows} <= {state}
        seen[state] = {row.finding_id for row in rows}
    for number in numbers:
        assert number in seen[review.worklist.read_row(number, viewer).state]
    return seen


def test_a_withheld_decision_is_not_opened_by_withdrawing_it(
    review: Review, twice: tuple[int, int], people: Any, form: Any
) -> None:
    first, second = twice
    review.decisions.decide(form(second), people["ann"])
    seen = review.worklist.read_row(second).decision_id
    review.decisions.decide(form(second, "dismissed", seen=seen), people["ben"])
    review.decisions.decide(form(first, "second-opinion"), people["ann"])
    before = review.worklist.read_row(second, "lea")
    assert (before.state, before.decided_by) == ("second-opinion", "")
    with pytest.raises(NotAllowed, match="awaits a second opinion"):
        undo(review, second, people["lea"])
    for attempt in (review.decisions.decide, lambda form, who: review.decisions.undo(second, 0, "u" * 12, who)):
        with pytest.raises((StaleDecision, NotAllowed)) as refused:
            attempt(form(second, seen=0), people["lea"])
        assert "ben" not in str(refused.value) and not re.search(r"\d\d:\d\d", str(refused.value))
    undo(review, second, people["ben"])  # of his own
    for viewer in ("ben", "lea"):
        row = review.worklist.read_row(second, viewer)
        assert (row.state, row.decided_by) == ("second-opinion", ""), "what is valid now is what ann said"


@pytest.mark.parametrize("outcome", ["confirmed", "dismissed", "unsure"])
def test_no_state_of_a_study_tells_who_gives_a_second_opinion_on_it(
    review: Review, twice: tuple[int, int], people: Any, form: Any, outcome: str
) -> None:
    first, second = twice
    review.decisions.decide(form(first, outcome), people["ann"])
    assert states_as_seen(review, twice, "ben")[outcome] == {first}, "no second opinion was requested yet"
    review.decisions.decide(form(second, "second-opinion"), people["ann"])
    asked = {state: set() for state in STATES} | {"second-opinion": {first, second}}
    assert states_as_seen(review, twice, "ben") == asked
    row = review.worklist.read_row(first, "ben")
    assert (row.decided_by, row.decided_at) == ("", None)
    assert states_as_seen(review, twice, "ann")[outcome] == {first}, "ann knows what she said"
    review.locks.take(first, people["ben"])
    assert states_as_seen(review, twice, "ben") == asked | {"second-opinion": {second}, "in-review": {first}}
    to_read = frozenset({"new", "in-review", "second-opinion"})
    assert len(review.worklist.read_page(WorklistQuery(states=to_read, viewer="ben")).rows) == 2
    seen = review.worklist.read_row(second, "ben").decision_id
    review.decisions.decide(form(second, "dismissed", seen=seen), people["ben"])
    assert review.worklist.read_row(first, "ben").decided_by == "ann", "both opinions are given"
