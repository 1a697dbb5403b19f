"""A small hospital in both databases: patients, studies, series, instances, and everything that names them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from pipeline.config import Settings
from pipeline.data.catalogue import schema
from pipeline.data.catalogue.database import migrate, open_engine
from pipeline.dicom.decode.attributes import RawIdentity
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.identity.pseudonyms import Ids, Pseudonyms

SETS = ("train", "validate", "calibrate", "develop", "gate", "test", None)


def identity_of(person: int, image: int) -> RawIdentity:
    """Invented identifiers; person 0 has no Patient ID."""
    return RawIdentity(
        issuer="ISSUER-B" if person % 2 else "",
        patient_id=f"MRN-{person:04d}" if person else "",
        study_uid=f"1.2.826.{person}.1",
        series_uid=f"1.2.826.{person}.1.1",
        sop_uid=f"1.2.826.{person}.1.1.{image}",
        accession_number=f"ACC{person}",
        study_date="20240131",
        frame_of_reference_uid=f"1.2.826.{person}.5",
    )


@dataclass
class Hospital:
    """Its settings and patients: one list of Ids per person."""

    settings: Settings
    people: list[list[Ids]]

    def engine(self) -> Engine:
        """Open the catalogue's database."""
        return open_engine(self.settings.catalogue)

    def membership(self) -> dict[str, tuple[float, str | None]]:
        """Return draw and set by *real* patient number, through crosswalk and catalogue."""
        engine = self.engine()
        with Crosswalk.open(self.settings) as crosswalk, Session(engine) as session:
            rows = session.execute(select(schema.Patient)).scalars().all()
            sets = {crosswalk.find_identity(row.patient_id).patient_id: (row.draw, row.set_name) for row in rows}
        engine.dispose()
        return sets


def _fill(settings: Settings, people: int, images: int) -> list[list[Ids]]:
    everyone = []
    with Pseudonyms.open(settings) as keys, Crosswalk.open(settings) as crosswalk, crosswalk.transaction():
        for person in range(people):
            raws = [identity_of(person, image) for image in range(images)]
            everyone.append([keys.of(raw, settings.site) for raw in raws])
            for ids, raw in zip(everyone[-1], raws, strict=True):
                crosswalk.remember(ids, raw)
                crosswalk.remember_path(keys.path(f"/scans/{raw.sop_uid}"), f"/scans/{raw.sop_uid}")
    return everyone


def _rows_of(keys: Pseudonyms, number: int, ids: list[Ids]) -> list[schema.Base]:
    first = ids[0]
    patient = schema.Patient(
        patient_id=first.patient_id, draw=number / 10, set_name=SETS[number % 7], identified=first.identified
    )
    rows: list[schema.Base] = [patient, schema.Study(study_id=first.study_id, patient_id=first.patient_id)]
    rows.append(schema.Series(series_id=first.series_id, study_id=first.study_id, modality="CT", attributes={}))
    for image, one in enumerate(ids):
        rows.append(
            schema.Instance(
                instance_id=one.instance_id,
                series_id=one.series_id,
                content_hash="c",
                attributes_hash="a",
                pixel_key="p",
                frames=1,
                attributes={},
                frame_of_reference_id=one.frame_of_reference_id,
            )
        )
        rows.append(
            schema.SourceFile(
                path_id=keys.path(f"/scans/1.2.826.{number}.1.1.{image}"),
                size_bytes=1,
                modified_ns=1,
                outcome="accepted",
                instance_id=one.instance_id,
            )
        )
    levels = {"patient": first.patient_id, "study": first.study_id, "instance": first.instance_id}
    rows += [schema.LabelRow(level=lv, subject=s, label="normal", source="t") for lv, s in levels.items()]
    rows.append(schema.InstanceVersion(instance_id=first.instance_id, version=1, attributes_hash="b", attributes={}))
    rows.append(schema.RejectionRow(subject=first.series_id, level="series", code="missing-slices", sentence="s"))
    rows.append(schema.RejectionRow(subject=f"{number:032x}", level="file", code="not-dicom", sentence="s"))
    rows.append(schema.NotScored(series_id=first.series_id, run_id="r1", code="no-route", sentence="s"))
    rows.append(
        schema.FindingRow(
            study_id=first.study_id,
            patient_id=first.patient_id,
            route="ct",
            model_sha256="m",
            run_id="r1",
            score=1.0,
            evidence=[{"instance_id": one.instance_id, "slice": f"{one.instance_id}/0", "score": 2.5} for one in ids],
        )
    )
    return rows


@pytest.fixture
def make_hospital() -> Callable[..., Hospital]:
    """Fill a workspace with people; every table that names a pseudonym has rows."""

    def make(settings: Settings, people: int = 4, images: int = 3) -> Hospital:
        everyone = _fill(settings, people, images)
        engine = open_engine(settings.catalogue)
        migrate(engine)
        with Session(engine) as session, session.begin(), Pseudonyms.open(settings) as keys:
            summary = {"patients": {ids[0].patient_id: 1 for ids in everyone}}
            session.add(schema.RunRow(run_id="r1", kind="score", folder="runs/r1", summary=summary))
            session.flush()
            for number, ids in enumerate(everyone):
                for row in _rows_of(keys, number, ids):
                    session.add(row)
                    session.flush()  # in this order: parents before children
            absorbed = keys.patient("local", "MRN-0002")
            session.add(schema.MergedPatient(absorbed_id=absorbed, patient_id=everyone[1][0].patient_id))
        engine.dispose()
        return Hospital(settings, everyone)

    return make


@pytest.fixture
def hospital(settings: Settings, make_hospital: Callable[..., Hospital]) -> Hospital:
    """Four people with three images each."""
    return make_hospital(settings)
