"""Queries of a pull and their results. Results are PHI: they hold real UIDs."""

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
    """A series in a PACS; `objects` is their number, None where the PACS does not give it."""

    study_uid: str
    uid: str
    objects: int | None = None


@dataclass(frozen=True, slots=True, repr=False)
class FoundObject:
    """An object in a PACS; the class is empty where the PACS does not give it."""

    uid: str
    sop_class: str = ""


class Source(Protocol):
    """A PACS to query and fetch from. Every method raises SendError where it does not answer."""

    @property
    def name(self) -> str: ...

    def studies(self, query: Query) -> list[str]:
        """Return the Study Instance UIDs that match, each once."""

    def series(self, study_uid: str, query: Query) -> list[FoundSeries]:
        """Return the series of a study that match."""

    def objects(self, series: FoundSeries) -> list[FoundObject]:
        """Return the objects of a series; empty where the series no longer exists."""

    def fetch(self, series: FoundSeries, objects: Sequence[FoundObject], whole: bool) -> None:
        """Fetch objects into the inbox; `whole` means that they are all objects of the series."""

    def close(self) -> None:
        """Release connections and ports."""


@dataclass(frozen=True, slots=True)
class Query:
    """Filters of a pull. A PACS may ignore some of them, so its answers are filtered again here.

    Attributes:
        since, until: range of Study Date, both ends included; None is open.
        modalities: of the series; empty for all.
        study_description, series_description: patterns with `*` and `?`; empty for all.
    """

    since: date | None = None
    until: date | None = None
    modalities: tuple[str, ...] = ()
    study_description: str = ""
    series_description: str = ""

    @classmethod
    def of(cls, config: PullConfig, now: datetime) -> Self:
        """Return the filters of a configuration; `now` has a time zone and defines "the last days"."""
        since, until = config.since, config.until
        if config.days is not None:
            until = now.astimezone(ZoneInfo(config.timezone)).date()
            since = until - timedelta(days=config.days - 1)
        return cls(since, until, config.modalities, config.study_description, config.series_description)

    @property
    def dates(self) -> str:
        """Date range in the notation of PS3.4 C.2.2.2.5; empty where both ends are open."""
        if self.since is None and self.until is None:
            return ""
        first, last = (f"{day:%Y%m%d}" if day else "" for day in (self.since, self.until))
        return first if first == last else f"{first}-{last}"

    def study_keys(self) -> list[dict[str, str]]:
        """Return the keys of the study-level queries, one per modality: ModalitiesInStudy takes a single value."""
        keys = {"StudyDate": self.dates, "StudyDescription": self.study_description}
        return [{**keys, "ModalitiesInStudy": modality} for modality in self.modalities or ("",)]

    def has_study(self, answer: Mapping[str, str]) -> bool:
        """Whether a study in an answer matches; a missing value does not match."""
        day = answer.get("StudyDate", "").replace(".", "")
        first, last = (f"{day:%Y%m%d}" if day else None for day in (self.since, self.until))
        dated = (first is None or first <= day) and (last is None or "" < day <= last)
        return dated and _fits(self.study_description, answer.get("StudyDescription", ""))

    def has_series(self, answer: Mapping[str, str]) -> bool:
        """Whether a series in an answer matches."""
        kind = not self.modalities or answer.get("Modality", "") in self.modalities
        return kind and _fits(self.series_description, answer.get("SeriesDescription", ""))


def _fits(pattern: str, text: str) -> bool:
    """Match wildcards as in PS3.4 C.2.2.2.4, but ignore case."""
    if not pattern:
        return True
    wild = "".join({"*": ".*", "?": "."}.get(sign, re.escape(sign)) for sign in pattern)
    return re.fullmatch(wild, text.strip(), re.IGNORECASE | re.DOTALL) is not None
