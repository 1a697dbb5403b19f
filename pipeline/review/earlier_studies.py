"""Earlier studies of the patient of a scan, to be shown beside it.

They are listed whether or not a model has scored or flagged them, and without anything that a model or a reader said,
so that they tell nothing about the scan. Later studies are left out: a reader must not know what came after.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import date
from operator import attrgetter

from cachetools import TTLCache, cachedmethod
from sqlalchemy import exists, select

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import Series, Study
from pipeline.review.study_dates import StudyDates, interval_words

MOST = 8  # the latest ones
REMEMBERED, REMEMBERED_S = 256, 60.0


@dataclass(frozen=True, slots=True)
class EarlierStudy:
    """A study of the same patient; `days` before the scan and its `date`, None where the dates are not known."""

    study_id: str
    days: int | None
    date: date | None

    @property
    def words(self) -> str:
        """How much earlier it was made."""
        return "another study, date unknown" if self.days is None else interval_words(self.days)


class EarlierStudies:
    """Find the earlier studies of a scan's patient; safe to share between threads."""

    def __init__(self, catalogue: Catalogue, dates: StudyDates) -> None:
        self._catalogue, self._dates = catalogue, dates
        self._cache: TTLCache[Hashable, tuple[EarlierStudy, ...]] = TTLCache(REMEMBERED, REMEMBERED_S)
        self._lock = threading.Lock()

    @cachedmethod(attrgetter("_cache"), lock=attrgetter("_lock"))
    def read(self, study_id: str) -> tuple[EarlierStudy, ...]:
        """Return the patient's other studies that are not later than this one, the latest first, at most `MOST`."""
        has_images = exists().where(Series.study_id == Study.study_id)
        patient = select(Study.patient_id).where(Study.study_id == study_id).scalar_subquery()
        query = select(Study.study_id).where(Study.patient_id == patient, Study.study_id != study_id, has_images)
        with self._catalogue.reading() as session:
            others = list(session.scalars(query.order_by(Study.first_seen_at.desc(), Study.study_id)))
        dates = self._dates.read([study_id, *others]) if others else {}
        studies = (_placed(other, dates.get(other), dates.get(study_id)) for other in others)
        earlier = [one for one in studies if one.days is None or one.days >= 0]
        return tuple(sorted(earlier, key=lambda one: (one.days is None, one.days or 0))[:MOST])


def _placed(study_id: str, day: date | None, own: date | None) -> EarlierStudy:
    return EarlierStudy(study_id, None if day is None or own is None else (own - day).days, day)
