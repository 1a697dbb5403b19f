"""Patients with labels, entered straight into the tables: splits look at nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

import pytest
from sqlalchemy import select

from pipeline.config import Settings
from pipeline.data.admission import draw_of
from pipeline.data.catalogue import Catalogue
from pipeline.data.schema import Instance, LabelRow, Patient, Series, Study


def pseudonym(*parts: object) -> str:
    """Return 32 hex digits that look like a pseudonym."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:32]


@pytest.fixture
def catalogue(settings: Settings) -> Iterator[Catalogue]:
    """An empty catalogue."""
    with Catalogue.open(settings) as opened:
        yield opened


@pytest.fixture
def enter() -> Callable[..., str]:
    """Enter a patient with one study, one series and one instance a label given."""

    def enter(
        catalogue: Catalogue,
        name: object,
        labels: Sequence[str] = (),
        official: str = "",
        level: str = "instance",
        pixels: str = "p",
        **patient: object,
    ) -> str:
        key = pseudonym("patient", name)
        values = {"draw": draw_of(key), **patient}
        with catalogue.session() as session:
            if session.get(Patient, key) is None:
                session.add(Patient(patient_id=key, **values))
                session.flush()
            for number, label in enumerate(labels):
                ids = {level: pseudonym(level, name, number) for level in ("study", "series", "instance")}
                ids["patient"] = key
                _add_image(session, key, ids, pixels)
                session.add(LabelRow(level=level, subject=ids[level], label=label, source="t", official_set=official))
        return key

    return enter


def _add_image(session: object, patient: str, ids: dict[str, str], pixels: str) -> None:
    rows = (
        Study(study_id=ids["study"], patient_id=patient),
        Series(series_id=ids["series"], study_id=ids["study"], modality="MR", attributes={}),
        Instance(
            instance_id=ids["instance"],
            series_id=ids["series"],
            content_hash="c",
            attributes_hash="a",
            pixel_key=pixels,
            frames=1,
            attributes={},
        ),
    )
    for row in rows:
        session.merge(row)  # type: ignore[attr-defined]
        session.flush()  # type: ignore[attr-defined]


@pytest.fixture
def sets_of() -> Callable[[Catalogue], dict[str, str | None]]:
    """Return every patient's set."""

    def sets_of(catalogue: Catalogue) -> dict[str, str | None]:
        with catalogue.reading() as session:
            return dict(session.execute(select(Patient.patient_id, Patient.set_name)).all())

    return sets_of
