"""Decisions are kept once, in order, for good: double clicks, late decisions and edits of the database are noticed."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from sqlalchemy import func, select, text, update

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.review_schema import AuditEntry, Decision
from pipeline.data.catalogue.schema import Base, Instance
from pipeline.errors import CatalogueError, IdentityError
from pipeline.review.refusals import (
    BadInput,
    BadText,
    HeldByAnother,
    NotAllowed,
    ScanGone,
    StaleDecision,
    UnknownFinding,
)
from pipeline.review.services import Review
from pipeline.review.worklist import WorklistQuery

SCRIPTS = "Läsion, опухоль, 病変, 종양, ورم, όγκος, ก้อน, é (decomposed), 🩻"


@pytest.fixture
def listed(nights: Any) -> list[int]:
    """Four flagged scans on the list, the most unusual first, with nothing blinded beside them."""
    nights.scans("abcd")
    nights.score({name: 0.01 * n for n, name in enumerate("abcd", start=1)})
    return [nights.finding(name) for name in "abcd"]


def count(catalogue: Catalogue, table: Any = Decision) -> int:
    with catalogue.reading() as session:
        return session.scalar(select(func.count()).select_from(table))


def test_a_decision_is_stored_with_who_and_when(review: Review, listed: list[int], people: Any, form: Any) -> None:
    done = review.decisions.decide(
        form(listed[0], code="4147007", text="  left\r\nside ", comment=SCRIPTS), people["ann"]
    )
    row = review.worklist.read_row(listed[0])
    assert (row.state, row.decided_by, row.decision_id) == ("confirmed", "ann", done.id)
    (entry,) = review.decisions.read_history(listed[0], people["ben"])
    assert (entry.by, entry.code, entry.meaning, entry.text) == ("ann", "4147007", "Mass", "left\nside")
    assert entry.comment == SCRIPTS
    assert review.decisions.verify().problems == ()


def test_a_double_click_is_one_decision(review: Review, listed: list[int], people: Any, form: Any) -> None:
    sent = form(listed[0])
    first, second = (review.decisions.decide(sent, people["ann"]) for _ in range(2))
    assert (first.repeated, second.repeated) == (False, True)
    assert first.id == second.id and count(review.worklist._catalogue) == 1
    with pytest.raises(BadInput, match="another decision"):
        review.decisions.decide(form(listed[1], token=sent.token), people["ann"])


def test_a_stale_form_is_refused_and_says_who_was_first(
    review: Review, listed: list[int], people: Any, form: Any
) -> None:
    first = review.decisions.decide(form(listed[0], "unsure"), people["ann"])
    with pytest.raises(StaleDecision, match=r"\bann\b"):
        review.decisions.decide(form(listed[0], "dismissed"), people["ben"])
    later = review.decisions.decide(form(listed[0], "dismissed", seen=first.id), people["ben"])
    assert review.worklist.read_row(listed[0]).decision_id == later.id


def test_undo_adds_a_row_and_restores_the_previous_decision(
    review: Review, listed: list[int], people: Any, form: Any
) -> None:
    first = review.decisions.decide(form(listed[0], "unsure"), people["ann"])
    second = review.decisions.decide(form(listed[0], "confirmed", seen=first.id), people["ann"])
    with pytest.raises(NotAllowed):
        review.decisions.undo(listed[0], second.id, "t" * 8, people["ben"])
    undone = review.decisions.undo(listed[0], second.id, "u" * 8, people["ann"])
    assert undone.state == review.worklist.read_row(listed[0]).state == "unsure"
    history = review.decisions.read_history(listed[0], people["ann"])
    assert [(t.outcome, t.withdrawn, t.withdraws) for t in history] == [
        ("unsure", False, None),
        ("confirmed", True, None),
        ("unsure", False, second.id),
    ]
    with pytest.raises(BadInput, match="withdrawn"):
        review.decisions.undo(listed[0], undone.id, "v" * 8, people["ann"])
    review.decisions.decide(form(listed[1]), people["ann"])
    other = review.decisions.undo(listed[1], review.worklist.read_row(listed[1]).decision_id, "w" * 8, people["lea"])
    assert other.state == "new"


def test_an_undo_pressed_twice_is_one(review: Review, listed: list[int], people: Any, form: Any) -> None:
    done = review.decisions.decide(form(listed[0]), people["ann"])
    first, second = (review.decisions.undo(listed[0], done.id, "once-only", people["ann"]) for _ in range(2))
    assert first.id == second.id and second.repeated


def test_a_second_opinion_comes_from_another_and_does_not_know_the_first(
    review: Review, listed: list[int], people: Any, form: Any
) -> None:
    asked = review.decisions.decide(form(listed[0], "second-opinion", comment="left apex?"), people["ann"])
    assert review.worklist.read_row(listed[0]).state == "second-opinion"
    assert review.decisions.read_history(listed[0], people["ben"]) == []
    assert [t.comment for t in review.decisions.read_history(listed[0], people["ann"])] == ["left apex?"]
    with pytest.raises(HeldByAnother, match="another reader"):
        review.decisions.decide(form(listed[0], "confirmed", seen=asked.id), people["ann"])
    review.decisions.decide(form(listed[0], "confirmed", seen=asked.id), people["ben"])
    assert [t.by for t in review.decisions.read_history(listed[0], people["ben"])] == ["ann", "ben"]


def test_a_scan_that_another_reader_holds_is_not_decided(
    review: Review, listed: list[int], people: Any, form: Any
) -> None:
    assert review.locks.take(listed[0], people["ann"]).mine
    with pytest.raises(HeldByAnother, match=r"\bann\b"):
        review.decisions.decide(form(listed[0]), people["ben"])
    review.decisions.decide(form(listed[0]), people["ann"])
    assert review.locks.find_holder(listed[0]) is None


@pytest.mark.parametrize(
    ("sent", "error", "words"),
    [
        ({"comment": "x" * 1_048_576}, BadText, r"\b1048576\b.*\b20000\b"),
        ({"text": "a\0b"}, BadText, "finding.*NUL"),
        ({"comment": "\ud800"}, BadText, "comment.*NUL"),
        ({"outcome": "maybe"}, BadInput, "'maybe'"),
        ({"code": "no-such"}, BadInput, "finding's code"),
        ({"token": "short"}, BadInput, "8 to 64"),
        ({"region": {"instance_id": "x", "frame": 0, "points": []}}, BadInput, "this scan"),
    ],
)
def test_a_decision_that_cannot_be_stored_is_refused_and_stores_nothing(
    review: Review, listed: list[int], people: Any, form: Any, sent: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        review.decisions.decide(form(listed[0], **sent), people["ann"])
    assert count(review.worklist._catalogue) == count(review.worklist._catalogue, AuditEntry) == 0


def test_free_text_stays_in_its_column(
    any_settings: Settings, listed: list[int], people: Any, form: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Free text may name a patient: it is in the decision, and in no log, no label, no line of the audit log."""
    # Before the engine is made: it asks once whether anybody listens. MLflow may have set a level on the inner name.
    for name in ("sqlalchemy", "sqlalchemy.engine"):
        caplog.set_level(logging.INFO, name)
    with Catalogue.open(any_settings) as catalogue, catalogue.reading() as session:
        review = Review(catalogue, any_settings, has_pixels=lambda key: True)
        review.decisions.decide(form(listed[0], text="Zyxwname one", comment="Zyxwname two"), people["ann"])
        with pytest.raises(StaleDecision) as refused:
            review.decisions.decide(form(listed[0], comment="Zyxwname three"), people["ben"])
        tables = {t.name: str(session.execute(select(t)).all()) for t in Base.metadata.sorted_tables}
    assert [name for name, rows in tables.items() if "Zyxwname" in rows] == ["decisions"]
    assert "INSERT INTO decisions" in caplog.text  # negative control: the statement itself was logged
    assert "Zyxwname" not in caplog.text + str(refused.value)


def test_who_may_not_decide_does_not(review: Review, listed: list[int], people: Any, form: Any) -> None:
    for name in ("adm", "aud"):
        with pytest.raises(NotAllowed, match=r"\breader\b.*\blead\b"):
            review.decisions.decide(form(listed[0]), people[name])


def test_a_scan_that_is_gone(catalogue: Catalogue, any_settings: Settings, listed: Any, people: Any, form: Any) -> None:
    emptied = Review(catalogue, any_settings, has_pixels=lambda key: False)
    with pytest.raises(ScanGone):
        emptied.decisions.decide(form(listed[0]), people["ann"])
    with pytest.raises(UnknownFinding, match="no finding 9999"):
        emptied.decisions.decide(form(9999), people["ann"])
    assert count(catalogue) == 0


def test_a_region_is_kept_in_pixels_of_its_image(
    review: Review, listed: list[int], people: Any, form: Any, name_of: Any
) -> None:
    image = name_of("instance", "a")
    drawn = {"instance_id": image, "frame": 0, "points": [[1, 2], [3.456, 2], [2, 5]], "stack": 3}
    review.decisions.decide(form(listed[0], region=drawn), people["ann"])
    (entry,) = review.decisions.read_history(listed[0], people["ann"])
    expected = {"points": [[1, 2], [3.46, 2], [2, 5]], "frame": 0, "instance_id": image}
    assert entry.region == expected | {"pixel_key": f"pixels-{image[:8]}"}
    own = {**drawn, "instance_id": name_of("instance", "b")}
    for points, word in (
        ([[1, 2], [3, 4]], r"\b2 corners\b"),
        ([[0, 0], [1, 1], [float("nan"), 2]], "numbers"),
        ([[0, 0], [1, 1], [-5, 2]], "outside"),
        ("abc", r"\b0 corners\b"),
    ):
        with pytest.raises(BadInput, match=word):
            review.decisions.decide(form(listed[1], region={**own, "points": points}), people["ann"])
    with pytest.raises(BadInput, match="this scan"):
        review.decisions.decide(form(listed[1], region=drawn), people["ann"])  # of another study


def test_a_region_follows_its_image_through_a_key_rotation(
    review: Review, listed: list[int], people: Any, form: Any, name_of: Any
) -> None:
    """The pseudonym is the one thing that may change; the chain holds because it covers the pixels' address instead."""
    drawn = {"instance_id": name_of("instance", "a"), "frame": 0, "points": [[1, 2], [3, 2], [2, 5]]}
    review.decisions.decide(form(listed[0], region=drawn), people["ann"])
    with review.worklist._catalogue.session() as session:
        session.execute(update(Instance).where(Instance.instance_id == drawn["instance_id"]).values(instance_id="new"))
    (entry,) = review.decisions.read_history(listed[0], people["ann"])
    assert entry.region is not None and entry.region["instance_id"] == "new"
    assert review.decisions.verify().problems == ()


@pytest.mark.parametrize("number", [0, -1, 2**31, 10**30])
def test_numbers_that_no_database_holds(review: Review, people: Any, form: Any, number: int) -> None:
    for ask in (
        lambda: review.worklist.read_row(number),
        lambda: review.worklist.read_page(WorklistQuery(after=number)),
        lambda: review.locks.take(number, people["ann"]),
        lambda: review.locks.find_holder(number),
        lambda: review.decisions.decide(form(number), people["ann"]),
        lambda: review.decisions.read_history(number, people["ann"]),
    ):
        with pytest.raises(UnknownFinding):
            ask()


@pytest.mark.parametrize("table", ["decisions", "audit_log", "reading_frame"])
@pytest.mark.parametrize("change", ["UPDATE {} SET {} = {}", "DELETE FROM {}"])
def test_the_database_refuses_edits(
    review: Review, listed: list[int], people: Any, form: Any, table: str, change: str
) -> None:
    review.decisions.decide(form(listed[0]), people["ann"])
    column = {"decisions": "outcome", "audit_log": "user_name", "reading_frame": "probability"}[table]
    with pytest.raises(CatalogueError, match="append-only"), review.worklist._catalogue.session() as session:
        session.execute(text(change.format(table, column, column)))


def test_replacing_a_row_is_an_edit_too(review: Review, listed: list[int], people: Any, form: Any) -> None:
    done = review.decisions.decide(form(listed[0]), people["ann"])
    catalogue = review.worklist._catalogue
    if catalogue.engine.dialect.name != "sqlite":
        pytest.skip("INSERT OR REPLACE is SQLite's")
    with pytest.raises(CatalogueError, match="append-only"), catalogue.session() as session:
        session.execute(text(f"INSERT OR REPLACE INTO decisions SELECT * FROM decisions WHERE id = {done.id}"))


TAMPERED = {
    "outcome": "UPDATE decisions SET outcome = 'dismissed' WHERE id = {id}",
    "reader": "UPDATE decisions SET reader = 'eve' WHERE id = {id}",
    "moved": "UPDATE decisions SET decided_at = '2020-01-01 00:00:00' WHERE id = {id}",
    "removed": "DELETE FROM decisions WHERE id = {id}",
}


@pytest.mark.parametrize("how", TAMPERED)
def test_the_chain_notices_what_triggers_could_not_stop(
    review: Review, listed: list[int], people: Any, form: Any, how: str
) -> None:
    done = [review.decisions.decide(form(finding, comment="c"), people["ann"]) for finding in listed]
    assert review.decisions.verify().problems == ()
    without_triggers(review, TAMPERED[how].format(id=done[1].id))
    at = done[2].id if how == "removed" else done[1].id
    (problem,) = review.decisions.verify().problems
    assert f"decisions row {at} was altered" in problem


def test_an_end_that_was_cut_off_is_noticed(review: Review, listed: list[int], people: Any, form: Any) -> None:
    done = [review.decisions.decide(form(finding), people["ann"]) for finding in listed]
    head, log_head = review.decisions.verify().head, review.audit.verify().head
    without_triggers(review, f"DELETE FROM decisions WHERE id = {done[-1].id}")
    assert review.decisions.verify().problems == ()  # a chain cannot see it by itself
    assert "records 4 decisions, but 3 are stored" in review.audit.verify().problems[0]
    assert "its end was cut off" in review.decisions.verify(head).problems[0]
    assert all("cut off" not in problem for problem in review.audit.verify(log_head).problems)


def test_another_key_makes_nothing_valid(catalogue: Catalogue, any_settings: Settings, listed: Any, review: Review,
                                         people: Any, form: Any) -> None:  # fmt: skip
    review.decisions.decide(form(listed[0]), people["ann"])
    key = any_settings.key_file.with_name("review.key")
    key.unlink()
    with pytest.raises(IdentityError, match="review.key"):
        Review(catalogue, any_settings)


def without_triggers(review: Review, statement: str) -> None:
    """Edit as the owner of the database could."""
    catalogue = review.worklist._catalogue
    sqlite = catalogue.engine.dialect.name == "sqlite"
    with catalogue.session() as session:
        for name in ("update", "delete"):
            session.execute(text(f"DROP TRIGGER decisions_no_{name}" + ("" if sqlite else " ON decisions")))
        session.execute(text(statement))
