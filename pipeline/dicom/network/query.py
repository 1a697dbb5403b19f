"""What a pull asks a PACS for, and what it is told is there. Everything found is PHI: it holds real UIDs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Protocol, Self
from zoneinfo import ZoneInfo

from pipeline.dicom.network.config import PullConfig


@dataclass(frozen=True, slots=True, repr=False)
class FoundSeries:
    """A series that a PACS has; `objects` is how many, None where it does not say."""

    study_uid: str
    uid: str
    objects: int | None = None


@dataclass(frozen=True, slots=True, repr=False)
class FoundObject:
    """An object that a PACS has; the class is empty where it does not say."""

    uid: str
    sop_class: str = ""


class Source(Protocol):
    """A PACS that is asked for studies. Every method raises SendError where it does not answer."""

    name: str

    def studies(self, query: Query) -> list[str]:
        """Return the Study Instance UIDs that match, each once."""

    def series(self, study_uid: str, query: Query) -> list[FoundSeries]:
        """Return the series of a study that match."""

    def objects(self, series: FoundSeries) -> list[FoundObject]:
        """Return the objects of a series; none where it is gone."""

    def fetch(self, series: FoundSeries, wanted: Sequence[FoundObject], whole: bool) -> None:
        """Fetch objects into the inbox; `whole` where they are all that the series has."""

    def close(self) -> None:
        """Free what is held."""


@dataclass(frozen=True, slots=True)
class Query:
    """Filters. A PACS may ignore some of them, so what it answers is held against them again.

    Attributes:
        since, until: of Study Date, both included; None is open.
        modalities: of series; empty for all.
        study_description, series_description: patterns with `*` and `?`; empty for all.
    """

    since: date | None = None
    until: date | None = None
    modalities: tuple[str, ...] = ()
    study_description: str = ""
    series_description: str = ""

    @classmethod
    def of(cls, config: PullConfig, now: datetime) -> Self:
        """Return the filters of a configuration; `now` knows its time zone, and says what "the last days" are."""
        since, until = config.since, config.until
        if config.days is not None:
            until = now.astimezone(ZoneInfo(config.timezone)).date()
            since = until - timedelta(days=config.days - 1)
        return cls(since, until, config.modalities, config.study_description, config.series_description)

    @property
    def dates(self) -> str:
        """The range as PS3.4 C.2.2.2.5 writes it; empty where both ends are open."""
        if self.since is None and self.until is None:
            return ""
        first, last = (f"{day:%Y%m%d}" if day else "" for day in (self.since, self.until))
        return first if first == last else f"{first}-{last}"

    def study_keys(self) -> list[dict[str, str]]:
        """Return the keys of the queries at the level of studies: ModalitiesInStudy takes one value a query."""
        keys = {"StudyDate": self.dates, "StudyDescription": self.study_description}
        return [{**keys, "ModalitiesInStudy": modality} for modality in self.modalities or ("",)]

    def has_study(self, found: Mapping[str, str]) -> bool:
        """Whether a study that was answered matches: what it does not say, does not."""
        day = found.get("StudyDate", "").replace(".", "")
        first, last = (f"{day:%Y%m%d}" if day else None for day in (self.since, self.until))
        dated = (first is None or first <= day) and (last is None or "" < day <= last)
        return dated and _fits(self.study_description, found.get("StudyDescription", ""))

    def has_series(self, found: Mapping[str, str]) -> bool:
        """Whether a series that was answered matches."""
        kind = not self.modalities or found.get("Modality", "") in self.modalities
        return kind and _fits(self.series_description, found.get("SeriesDescription", ""))


def _fits(pattern: str, text: str) -> bool:
    """Match as PS3.4 C.2.2.2.4 does, upper and lower case alike."""
    if not pattern:
        return True
    wild = "".join({"*": ".*", "?": "."}.get(sign, re.escape(sign)) for sign in pattern)
    return re.fullmatch(wild, text.strip(), re.IGNORECASE | re.DOTALL) is not None
