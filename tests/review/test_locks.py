"""A scan is lent to one reader at a time, for a while, on either database."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest

from pipeline.data.catalogue import schema
from pipeline.review import decisions, locks, worklist
from pipeline.review.permissions import Actor, CommandLine
from pipeline.review.refusals import BadInput, HeldByAnother, NotAllowed, UnknownFinding
from pipeline.review.services import Review


@pytest.fixture
def scan(nights: Any) -> int:
    nights.scans("a")
    nights.score({"a": 0.01})
    return nights.finding("a")


class Clock:
    """The time that the reading list sees."""

    def __init__(self) -> None:
        self.moment = schema.now()

    def __call__(self) -> Any:
        return self.moment

    def pass_minutes(self, minutes: float) -> None:
        self.moment += timedelta(minutes=minutes)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    manual = Clock()
    for module in (locks, worklist, decisions):
        monkeypatch.setattr(module, "now", manual)
    return manual


def test_one_reader_holds_the_scan_and_the_other_learns_who(review: Review, scan: int, people: Any) -> None:
    assert review.locks.take(scan, people["ann"]).mine
    claim = review.locks.take(scan, people["ben"])
    assert (claim.mine, claim.holder) == (False, "ann")
    row = review.worklist.read_row(scan)
    assert (row.state, row.holder) == ("in-review", "ann")
    assert not review.locks.release(scan, people["ben"])
    assert review.locks.release(scan, people["ann"])
    assert review.worklist.read_row(scan).state == "new"
    assert review.locks.take(scan, people["ben"]).mine


@pytest.fixture
def many(nights: Any) -> list[int]:
    nights.scans(range(25))
    nights.score(dict.fromkeys(range(25), 0.01))
    return [nights.finding(n) for n in range(25)]


def test_nobody_keeps_the_whole_list(review: Review, many: list[int], people: Any, clock: Clock) -> None:
    """Of 25 opened scans the latest five are held, and twenty may be assigned to oneself."""
    for scan in many:
        clock.pass_minutes(0.1)
        assert review.locks.take(scan, people["ann"]).mine
    held = [scan for scan in many if (claim := review.locks.find_holder(scan)) and claim.holder == "ann"]
    assert held == many[-5:]
    for scan in many[:20]:
        review.locks.assign(scan, "ben", people["ben"])
    assert review.locks.release(many[-1], people["ann"])
    with pytest.raises(BadInput, match="20"):
        review.locks.assign(many[-1], "ben", people["ben"])
    assert review.locks.assign(many[3], "ben", people["ben"]).assigned, "one of his own may be renewed"


def test_a_lease_runs_out_and_a_heartbeat_renews_it(review: Review, scan: int, people: Any, clock: Clock) -> None:
    begun = review.locks.take(scan, people["ann"])
    clock.pass_minutes(14)
    renewed = review.locks.take(scan, people["ann"])
    assert (renewed.since, renewed.until - begun.until) == (begun.since, timedelta(minutes=14))
    clock.pass_minutes(14)
    assert not review.locks.take(scan, people["ben"]).mine
    clock.pass_minutes(1)
    assert review.worklist.read_row(scan).state == "new"
    taken = review.locks.take(scan, people["ben"])
    assert taken.mine and taken.since == clock.moment


def test_who_lost_a_lease_does_not_decide_over_the_next(
    review: Review, scan: int, people: Any, clock: Clock, form: Any
) -> None:
    review.locks.take(scan, people["ann"])
    clock.pass_minutes(16)
    review.locks.take(scan, people["ben"])
    with pytest.raises(HeldByAnother, match=r"\bben\b"):
        review.decisions.decide(form(scan), people["ann"])


def test_twenty_at_once_and_one_gets_it(review: Review, scan: int) -> None:
    start, claims = threading.Barrier(20), []

    def take(number: int) -> None:
        start.wait()
        claims.append(review.locks.take(scan, Actor(f"r{number}", "reader")))

    threads = [threading.Thread(target=take, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claims) == 20
    assert sum(claim.mine for claim in claims) == 1
    assert len({claim.holder for claim in claims}) == 1


def test_nothing_to_take(review: Review, scan: int, people: Any) -> None:
    with pytest.raises(UnknownFinding):
        review.locks.take(12345, people["ann"])
    with pytest.raises(NotAllowed):
        review.locks.take(scan, people["aud"])


def test_a_scan_is_kept_for_a_shift_and_leaving_its_page_does_not_end_that(
    review: Review, scan: int, people: Any, clock: Clock, form: Any
) -> None:
    claim = review.locks.assign(scan, "ann", people["ann"])
    assert claim.mine and claim.assigned and claim.until == clock.moment + timedelta(hours=12)
    review.locks.take(scan, people["ann"])
    assert not review.locks.release(scan, people["ann"])
    clock.pass_minutes(11 * 60)
    row = review.worklist.read_row(scan)
    assert (row.holder, row.assigned, row.held_until) == ("ann", True, claim.until)
    assert not review.locks.take(scan, people["ben"]).mine
    for refused in (
        lambda: review.locks.assign(scan, "ben", people["ben"]),
        lambda: review.decisions.decide(form(scan), people["ben"]),
    ):
        with pytest.raises(HeldByAnother, match="ann has"):
            refused()
    assert not review.locks.unassign(scan, people["ben"])
    clock.pass_minutes(61)
    assert review.locks.take(scan, people["ben"]).mine  # the shift is over


def test_a_lead_keeps_scans_for_readers_and_nobody_else_does(review: Review, scan: int, people: Any) -> None:
    for name, role in (("ann", "reader"), ("ben", "reader"), ("aud", "auditor")):
        review.users.add(name, role, None, CommandLine())
    review.users.add("gone", "reader", None, CommandLine())
    review.users.disable("gone", CommandLine())
    with pytest.raises(NotAllowed, match="lead"):
        review.locks.assign(scan, "ben", people["ann"])
    for wrong in ("nobody", "aud", "gone"):
        with pytest.raises(BadInput):
            review.locks.assign(scan, wrong, people["lea"])
    review.locks.assign(scan, "ann", people["lea"])
    assert review.locks.assign(scan, "ben", people["lea"]).holder == "ben"  # a lead changes their mind
    assert review.locks.unassign(scan, people["lea"]) and not review.locks.unassign(scan, people["lea"])
    review.locks.take(scan, people["ann"])
    with pytest.raises(HeldByAnother, match="ann has"):  # the present reader keeps the scan
        review.locks.assign(scan, "ben", people["lea"])
    entries = [(e.user, e.action, e.detail) for e in reversed(review.audit.list_entries()) if "assign" in e.action]
    assert entries == [("lea", "assign", {"to": "ann"}), ("lea", "assign", {"to": "ben"}), ("lea", "unassign", {})]


def test_a_decided_scan_is_reserved_for_nobody(review: Review, scan: int, people: Any, form: Any) -> None:
    review.locks.assign(scan, "ann", people["ann"])
    review.decisions.decide(form(scan, outcome="second-opinion"), people["ann"])
    assert review.worklist.read_row(scan).holder == ""
    with pytest.raises(HeldByAnother, match="second opinion"):
        review.locks.assign(scan, "ann", people["ann"])
    assert review.locks.assign(scan, "ben", people["ben"]).mine
