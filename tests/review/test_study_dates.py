"""Dates of studies in words: exact only where they say no day of the calendar."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import Settings
from pipeline.review.study_dates import StudyDates, coarse_age, interval_words


@pytest.mark.parametrize(
    ("days", "interval", "age"),
    [
        (0, "same day", "this week"),
        (1, "1 day earlier", "this week"),
        (6, "6 days earlier", "this week"),
        (7, "7 days earlier", "1 week ago"),
        (60, "60 days earlier", "8 weeks ago"),
        (61, "2 months earlier", "2 months ago"),
        (365, "11 months earlier", "11 months ago"),
        (366, "12 months earlier", "12 months ago"),
        (731, "2 years earlier", "2 years ago"),
        (-3, None, "this week"),
    ],
)
def test_intervals_and_ages_in_words(days: int, interval: str | None, age: str) -> None:
    assert coarse_age(days) == age
    assert interval is None or interval_words(days) == interval


def test_looking_for_dates_makes_no_key_and_no_crosswalk(tmp_path: Path) -> None:
    assert StudyDates(Settings(workspace=tmp_path)).read(["a" * 32]) == {}
    assert list(tmp_path.iterdir()) == []
