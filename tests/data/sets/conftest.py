"""Catalogues filled by hand: rows one by one, and whole patients with labels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import select

from pipeline.config import Settings
from pipeline.data.catalogue.admission import draw_of
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import Base, Instance, LabelRow, Patient, Series, Study
from pipeline.dicom.decode.attributes import InstanceAttributes

CT = "1.2.840.10008.5.1.4.1.1.2"


class Hospital:
    """Adds patients, series and labels to a catalogue; ids are the names given."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._known: set[str] = set()

    def patient(self, name: str, set_name: str | None = None, **fields: Any) -> None:
        self._add(Patient(patient_id=name, draw=0.5, set_name=set_name, **fields))

    def series(
        self,
        name: str,
        patient: str = "p",
        study: str | None = None,
        heights: tuple[float, ...] = (0.0, 2.0, 4.0),
        **fields: Any,
    ) -> None:
        """A CT stack whose instances `name-0`, `name-1`, ... lie at `heights` mm, one instance per slice."""
        study = study or f"t-{patient}"
        if patient not in self._known:
            self.patient(patient)
        if study not in self._known:
            self._add(Study(study_id=study, patient_id=patient))
            self._known.add(study)
        shared = self._attributes(**fields)
        self._add(Series(series_id=name, study_id=study, modality=shared.modality, attributes=shared.to_json()))
        for number, height in enumerate(heights):
            own = self._attributes(positions=((0.0, 0.0, height),), instance_number=number + 1, **fields)
            self._add(self._instance(name, number, own))

    def flat(self, name: str, patient: str, count: int, frames: int = 1, **fields: Any) -> None:
        """Images without geometry, each with several frames."""
        fields = {"sop_class_uid": "", "orientation": None, **fields}
        self.series(name, patient, heights=(), frames=frames, **fields)
        for number in range(count):
            own = self._attributes(instance_number=count - number, frames=frames, **fields)
            self._add(self._instance(name, number, own))

    def label(self, level: str, subject: str, label: str, **fields: Any) -> None:
        self._add(LabelRow(level=level, subject=subject, label=label, source="reading", **fields))

    def _attributes(self, **fields: Any) -> InstanceAttributes:
        standard = {
            "sop_class_uid": CT,
            "modality": "CT",
            "body_part": "HEAD",
            "rows": 8,
            "columns": 8,
            "image_type": ("ORIGINAL", "PRIMARY", "AXIAL"),
            "orientation": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
            "pixel_spacing_mm": (1.0, 1.0),
        }
        return InstanceAttributes(**(standard | fields))

    def _instance(self, series: str, number: int, attributes: InstanceAttributes) -> Instance:
        return Instance(
            instance_id=f"{series}-{number}",
            series_id=series,
            content_hash="",
            attributes_hash="",
            pixel_key=f"pixels-{series}-{number}",
            frames=attributes.frames,
            attributes=attributes.to_json(),
        )

    def _add(self, row: Base) -> None:
        if isinstance(row, Patient):
            self._known.add(row.patient_id)
        with self.catalogue.session() as session:
            session.add(row)


@pytest.fixture
def hospital(settings: Settings) -> Iterator[Hospital]:
    """An empty hospital."""
    with Catalogue.open(settings) as catalogue:
        yield Hospital(catalogue)


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
    """Enter a patient with one study, one series and one instance per label."""

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
