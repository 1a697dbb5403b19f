"""Statements about a patient: they cover the studies so far and no later one.

"Normal" today says nothing about a scan of next year. So a line that names a patient alone becomes one label per study
that is covered, on a level of its own that any statement about the study itself overrides. Covered are the studies up
to the day of the line's `date`; without one, the studies in the catalogue when the line is first imported.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from pipeline.data.catalogue.schema import LabelRow, Study
from pipeline.data.labels.label_csv import LabelLine
from pipeline.data.labels.label_matching import Match, Unmatched
from pipeline.data.labels.label_values import LabelValues
from pipeline.dicom.identity.crosswalk import Crosswalk

PATIENT_STUDY = "patient-study"  # the level: said of the patient, applied to a study
_SAID = ("label", "source", "reader", "labelled_on")
_STUDIES = (
    select(Study.study_id, Study.patient_id)
    .where(Study.study_id.in_(bindparam("subjects", expanding=True)))
    .order_by(Study.study_id)
)


def names_patient_alone(line: LabelLine) -> bool:
    """Return whether a line names a patient and nothing more specific."""
    more = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "AccessionNumber", "StudyDate")
    return bool(line["PatientID"]) and not any(line[name] for name in more)


def match_patient(session: Session, crosswalk: Crosswalk, line: LabelLine, values: LabelValues) -> list[Match]:
    """Return the studies that a statement about a patient covers.

    Raises:
        Unmatched: no study of the patient is in the catalogue or covered, or several persons have the PatientID.
    """
    candidates = crosswalk.find_studies(patient_id=line["PatientID"], issuer=line["IssuerOfPatientID"])
    rows = session.execute(_STUDIES, {"subjects": candidates}).all()
    if not rows:
        raise Unmatched("no study of this PatientID is in the catalogue: not ingested yet, or rejected")
    persons = {row.patient_id for row in rows}
    if len(persons) > 1:
        raise Unmatched(f"{len(persons)} persons of different issuers have this PatientID; add IssuerOfPatientID")
    studies = {row.study_id for row in rows}
    if values.labelled_on:
        studies = _until(crosswalk, studies, values.labelled_on)
    else:
        studies = _stated_before(session, studies, values) or studies
    if not studies:
        raise Unmatched(
            "every study of the patient is later than the line's date or has none, and a statement about a patient "
            "covers no later study; name the study, or correct the date"
        )
    return [Match(PATIENT_STUDY, study, rows[0].patient_id) for study in sorted(studies)]


def _until(crosswalk: Crosswalk, studies: Collection[str], day: str) -> set[str]:
    last = day.replace("-", "")
    return {study for study, date in crosswalk.find_study_dates(studies).items() if date <= last}


def _stated_before(session: Session, studies: Collection[str], values: LabelValues) -> set[str]:
    """Return the studies that the same statement was applied to when it was first imported."""
    same = [getattr(LabelRow, name) == getattr(values, name) for name in _SAID]
    query = select(LabelRow.subject).where(LabelRow.level == PATIENT_STUDY, LabelRow.subject.in_(studies), *same)
    return set(session.scalars(query))
