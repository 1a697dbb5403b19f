"""Trends of a night: every day has its own number, and days outside the four weeks are not drawn."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import RejectionRow, RunRow
from pipeline.stages.operations.trends import DAYS, read_trends

LAST = date(2026, 3, 28)


@pytest.fixture
def weeks(settings: Settings) -> Catalogue:
    """Refusals and runs of two days, and of one before the four weeks."""
    with Catalogue.open(settings) as catalogue:
        with catalogue.session() as session:
            for back, count in ((0, 2), (3, 1), (DAYS, 5)):
                day = datetime.combine(LAST - timedelta(days=back), datetime.min.time()).replace(hour=23)
                for number in range(count):
                    subject = f"{back}-{number}"
                    session.add(
                        RejectionRow(subject=subject, level="file", code="not-dicom", sentence="", first_seen_at=day)
                    )
                run = {"kind": "score", "route": "mr", "folder": "", "state": "done", "summary": {"flagged": count}}
                session.add(RunRow(run_id=f"run-{back}", started_at=day, **run))
        yield catalogue


def test_each_day_has_its_own_count(weeks: Catalogue) -> None:
    trends = read_trends(weeks, LAST)
    arrived, flagged, refused = (one.values for one in trends.counts)
    assert arrived == (0,) * DAYS
    assert flagged == refused == (*[0] * (DAYS - 4), 1, 0, 0, 2)
    assert trends.counts[0].days == tuple(LAST - timedelta(days=back) for back in reversed(range(DAYS)))
    assert list(trends.refusals) == ["Files without an image"]
    assert trends.p_values == ()


def test_a_hidden_run_hides_its_day_only(weeks: Catalogue) -> None:
    flagged = read_trends(weeks, LAST, {"run-0"}).counts[1].values
    assert flagged == (*[0] * (DAYS - 4), 1, 0, 0, None)


@pytest.mark.parametrize(("day", "days"), [(date.min, 1), (date.max, DAYS), (date(1, 1, 3), 3)])
def test_any_day_of_the_calendar_can_be_asked(weeks: Catalogue, day: date, days: int) -> None:
    assert len(read_trends(weeks, day).counts[0].days) == days
