"""Every night can be reached, however long ago; a reader is not led to one that only an object of ours has made."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta

import pytest

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import RejectionRow, RunRow, SourceFile
from pipeline.stages.operations.drift import NIGHTS, find_nights_beside, list_nights

FIRST = date(2024, 1, 1)


@pytest.fixture
def years(settings: Settings) -> Iterator[Catalogue]:
    """Forty nights, ten days apart; at the end a file that came back, and one that was not read."""
    with Catalogue.open(settings) as catalogue:
        with catalogue.session() as session:
            for number in range(40):
                at = datetime.combine(FIRST, datetime.min.time()) + timedelta(days=10 * number, hours=2)
                run = {"kind": "score", "route": "mr", "folder": "", "state": "done"}
                session.add(RunRow(run_id=f"run-{number}", started_at=at, **run))
            for code, day in (("made-by-nightread", 1000), ("not-dicom", 900)):
                at = datetime.combine(FIRST + timedelta(days=day), datetime.max.time()).replace(microsecond=0)
                file = {"path_id": code, "size_bytes": 1, "modified_ns": 1, "outcome": code, "seen_at": at}
                session.add(SourceFile(**file))
                row = {"subject": code, "level": "file", "code": code, "sentence": "", "first_seen_at": at}
                session.add(RejectionRow(**row))
        yield catalogue


def test_steps_lead_through_all_nights(years: Catalogue) -> None:
    day: date | None = FIRST
    visited = []
    while day is not None:
        visited.append(day)
        before, day = find_nights_beside(years, day)
        assert before == (visited[-2] if len(visited) > 1 else None)
    assert len(visited) == 42 > NIGHTS
    assert visited[:40] == [FIRST + timedelta(days=10 * number) for number in range(40)]
    assert len(list_nights(years)) == NIGHTS


def test_a_day_without_events_has_neighbours(years: Catalogue) -> None:
    assert find_nights_beside(years, FIRST + timedelta(days=14)) == (
        FIRST + timedelta(days=10),
        FIRST + timedelta(days=20),
    )
    assert find_nights_beside(years, date.min) == (None, FIRST)
    assert find_nights_beside(years, date.max) == (FIRST + timedelta(days=1000), None)


def test_an_object_of_ours_that_came_back_makes_no_night(years: Catalogue) -> None:
    hidden = ("made-by-nightread",)
    read = FIRST + timedelta(days=900)
    assert find_nights_beside(years, read, hidden) == (FIRST + timedelta(days=390), None)
    assert find_nights_beside(years, read)[1] == list_nights(years)[0] == FIRST + timedelta(days=1000)
    assert list_nights(years, hidden)[0] == read
