"""Labels in effect, over all levels, of each patient who has no set yet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session

from pipeline.data.catalogue.content_hash import draw_of
from pipeline.data.catalogue.schema import Instance, LabelRow, Patient, Series, Study
from pipeline.data.labels.patient_level import PATIENT_STUDY
from pipeline.data.labels.review_labels import DISMISSED_FLAG

USABLE = or_(Patient.identified, Patient.image_is_subject)  # others get no set, ever


@dataclass(slots=True)
class PatientEvidence:
    """All labels in effect on one patient, and the official sets that any row names."""

    patient_id: str
    draw: float
    labels: set[str] = field(default_factory=set)
    official_sets: set[str] = field(default_factory=set)


def read_unassigned_evidence(
    session: Session, by_pixels: bool = False, unlabelled: bool = False
) -> list[PatientEvidence]:
    """Return the evidence on every patient with labels and without a set, who is identified or a single image.

    With `unlabelled`, also on such patients without labels; not on those with a dismissed flag.

    A newer row of a subject replaces its older label, but official sets are not withdrawn by later rows. Rows that
    dismiss
    a flag are not evidence: they say nothing about the normal scans that were not flagged. `by_pixels` derives the draw
    from the patient's images instead of the pseudonym.
    """
    by_patient: dict[str, PatientEvidence] = {}
    for query in _queries():
        standing: dict[str, tuple[str, str]] = {}
        for patient_id, draw, subject, label, official in session.execute(query):
            evidence = by_patient.setdefault(patient_id, PatientEvidence(patient_id, draw))
            standing[subject] = (patient_id, label)
            if official:
                evidence.official_sets.add(official)
        for patient_id, label in standing.values():
            by_patient[patient_id].labels.add(label)
    if unlabelled:
        _add_unlabelled(session, by_patient)
    if by_pixels:
        for patient_id, least in session.execute(least_pixels()):
            if patient_id in by_patient:
                by_patient[patient_id].draw = draw_of(hashlib.sha256(least.encode()).hexdigest())
    return sorted(by_patient.values(), key=lambda evidence: evidence.patient_id)


def _add_unlabelled(session: Session, by_patient: dict[str, PatientEvidence]) -> None:
    dismissed = {row[0] for query in _queries(dismissed=True) for row in session.execute(query)}
    for patient_id in dismissed & by_patient.keys():
        if not by_patient[patient_id].labels & {"normal", "abnormal"} and not by_patient[patient_id].official_sets:
            del by_patient[patient_id]
    query = select(Patient.patient_id, Patient.draw).where(Patient.set_name.is_(None), USABLE)
    for patient_id, draw in session.execute(query):
        if patient_id not in by_patient and patient_id not in dismissed:
            by_patient[patient_id] = PatientEvidence(patient_id, draw)


def least_pixels() -> Select[tuple[str, str]]:
    """Select the smallest content address of each patient's images; hash it, because the minimum of many is small."""
    images = select(Study.patient_id, func.min(Instance.pixel_key)).select_from(Study)
    images = images.join(Series, Series.study_id == Study.study_id)
    return images.join(Instance, Instance.series_id == Series.series_id).group_by(Study.patient_id)


def _queries(dismissed: bool = False) -> Iterator[Select[tuple[str, float, str, str, str]]]:
    columns = (Patient.patient_id, Patient.draw, LabelRow.subject, LabelRow.label, LabelRow.official_set)
    counted = LabelRow.source == DISMISSED_FLAG if dismissed else LabelRow.source != DISMISSED_FLAG
    base = select(*columns).where(Patient.set_name.is_(None), USABLE, counted).order_by(LabelRow.id)
    studies = base.join_from(Patient, Study, Study.patient_id == Patient.patient_id)
    series = studies.join(Series, Series.study_id == Study.study_id)
    yield base.join_from(Patient, LabelRow, (LabelRow.level == "patient") & (LabelRow.subject == Patient.patient_id))
    for level in (PATIENT_STUDY, "study"):
        yield studies.join(LabelRow, (LabelRow.level == level) & (LabelRow.subject == Study.study_id))
    yield series.join(LabelRow, (LabelRow.level == "series") & (LabelRow.subject == Series.series_id))
    instances = series.join(Instance, Instance.series_id == Series.series_id)
    yield instances.join(LabelRow, (LabelRow.level == "instance") & (LabelRow.subject == Instance.instance_id))
