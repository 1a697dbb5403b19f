"""Study dates, read from the crosswalk for display and remembered for some minutes; nothing else keeps them."""

from __future__ import annotations

import threading
from collections.abc import Collection
from datetime import date, datetime

from cachetools import TTLCache

from pipeline.config import Settings
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.errors import IdentityError

REMEMBERED, REMEMBERED_S = 20_000, 600.0
_WEEK, _MONTH, _YEAR = 7, 30.44, 365.25  # days


class StudyDates:
    """Read the dates of studies by their pseudonyms; safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._lock = settings, threading.Lock()
        self._dates: TTLCache[str, date | None] = TTLCache(REMEMBERED, REMEMBERED_S)

    def read(self, study_ids: Collection[str]) -> dict[str, date]:
        """Return the date of each study; those without a valid one, or without a crosswalk here, are left out."""
        with self._lock:
            remembered = {one: self._dates[one] for one in set(study_ids) if one in self._dates}
        missing = sorted(set(study_ids) - set(remembered))
        if missing:
            dates = self._read(missing)
            fresh = {one: _date(dates.get(one, "")) for one in missing}
            with self._lock:
                self._dates.update(fresh)
            remembered |= fresh
        return {one: day for one, day in remembered.items() if day is not None}

    def _read(self, study_ids: list[str]) -> dict[str, str]:
        # Opening a crosswalk makes a key and a database where they are missing, which looking at a list must not do.
        if not self._settings.key_file.exists():
            return {}
        try:
            with Crosswalk.open(self._settings) as crosswalk:
                return crosswalk.find_study_dates(study_ids)
        except IdentityError:  # it is kept elsewhere, or exposed: `nightread doctor` names the cause
            return {}


def _date(text: str) -> date | None:
    try:
        return datetime.strptime(text, "%Y%m%d").date()
    except ValueError:
        return None


def interval_words(days: int) -> str:
    """Return how much earlier a study was made: `same day`, `12 days earlier`, `4 years earlier`."""
    if days == 0:
        return "same day"
    return f"{_length(days)} earlier"


def coarse_age(days: int) -> str:
    """Return the age of a study without its date: `this week`, `3 weeks ago`, `7 months ago`, `4 years ago`."""
    if days < _WEEK:
        return "this week"
    weeks = days // _WEEK
    return f"{_count(weeks, 'week')} ago" if days < 2 * _MONTH else f"{_length(days)} ago"


def _length(days: int) -> str:
    if days < 2 * _MONTH:
        return _count(days, "day")
    if days < 2 * _YEAR:
        return _count(int(days / _MONTH), "month")
    return _count(int(days / _YEAR), "year")


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"
