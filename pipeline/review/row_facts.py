"""Facts about the scans of a page of the list, from the allow-listed attributes of their series."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import Series

SEXES = {"F": "female", "M": "male", "O": "other"}


@dataclass(frozen=True, slots=True)
class ScanFacts:
    """Facts of a row: the patient in words, the distinct series descriptions, the number of series."""

    patient: str
    descriptions: tuple[str, ...]
    series: int


NOTHING = ScanFacts("", (), 0)


def read_scan_facts(catalogue: Catalogue, study_ids: Collection[str]) -> dict[str, ScanFacts]:
    """Return the facts of each study that has series."""
    query = select(Series.study_id, Series.attributes).where(Series.study_id.in_(sorted(study_ids)))
    by_study: dict[str, list[dict[str, Any]]] = {}
    with catalogue.reading() as session:
        for study_id, attributes in session.execute(query.order_by(Series.study_id, Series.series_id)):
            by_study.setdefault(study_id, []).append(attributes)
    return {study_id: _facts(series) for study_id, series in by_study.items()}


def _facts(series: list[dict[str, Any]]) -> ScanFacts:
    descriptions = dict.fromkeys(" ".join(map(str, one.get("description") or ())) for one in series)
    return ScanFacts(_patient(series), tuple(filter(None, descriptions)), len(series))


def _patient(series: list[dict[str, Any]]) -> str:
    """Return age and sex where all series that state them agree: `54 years, female`."""
    ages = {one["age_years"] for one in series if one.get("age_years") is not None}
    sexes = {SEXES.get(str(one.get("sex", "")), "") for one in series} - {""}
    age = f"{age_words(int(*ages))}" if len(ages) == 1 else ""
    return ", ".join(filter(None, (age, *(sexes if len(sexes) == 1 else ()))))


def age_words(years: int) -> str:
    """Return an age in words; ages above 89 are stored as 90."""
    return "90 years or older" if years >= 90 else f"{years} year{'' if years == 1 else 's'}"
