"""What the standing labels say of each patient who has no set yet, over all levels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session

from pipeline.data.catalogue.content_hash import draw_of
from pipeline.data.catalogue.schema import Instance, LabelRow, Patient, Series, Study
from pipeline.data.labels.review_labels import DISMISSED_FLAG


@dataclass(slots=True)
class PatientEvidence:
    """The labels that stand anywhere on one patient, and the official sets that any of the rows names."""

    patient_id: str
    draw: float
    labels: set[str] = field(default_factory=set)
    official_sets: set[str] = field(default_factory=set)


def unassigned_evidence(session: Session, by_pixels: bool = False) -> list[PatientEvidence]:
    """Return the evidence on every patient with labels and no set, who is identified or is a single image.

    A newer row of a subject replaces its older label; what official set a row named is not withdrawn by later rows.
    Rows that dismiss a flag are not evidence: they say nothing of the normal scans that nobody flagged.
    `by_pixels` reads the draw off the images that are there instead of the pseudonym.
    """
    found: dict[str, PatientEvidence] = {}
    for query in _queries():
        standing: dict[str, tuple[str, str]] = {}
        for patient_id, draw, subject, label, official in session.execute(query):
            evidence = found.setdefault(patient_id, PatientEvidence(patient_id, draw))
            standing[subject] = (patient_id, label)
            if official:
                evidence.official_sets.add(official)
        for patient_id, label in standing.values():
            found[patient_id].labels.add(label)
    if by_pixels:
        for patient_id, least in session.execute(least_pixels()):
            if patient_id in found:
                found[patient_id].draw = draw_of(hashlib.sha256(least.encode()).hexdigest())
    return sorted(found.values(), key=lambda evidence: evidence.patient_id)


def least_pixels() -> Select[tuple[str, str]]:
    """Select the smallest content address among each patient's images; hashed, since the least of many is small."""
    images = select(Study.patient_id, func.min(Instance.pixel_key)).select_from(Study)
    images = images.join(Series, Series.study_id == Study.study_id)
    return images.join(Instance, Instance.series_id == Series.series_id).group_by(Study.patient_id)


def _queries() -> Iterator[Select[tuple[str, float, str, str, str]]]:
    columns = (Patient.patient_id, Patient.draw, LabelRow.subject, LabelRow.label, LabelRow.official_set)
    known = or_(Patient.identified, Patient.image_is_subject)
    heard = LabelRow.source != DISMISSED_FLAG
    base = select(*columns).where(Patient.set_name.is_(None), known, heard).order_by(LabelRow.id)
    studies = base.join_from(Patient, Study, Study.patient_id == Patient.patient_id)
    series = studies.join(Series, Series.study_id == Study.study_id)
    yield base.join_from(Patient, LabelRow, (LabelRow.level == "patient") & (LabelRow.subject == Patient.patient_id))
    yield studies.join(LabelRow, (LabelRow.level == "study") & (LabelRow.subject == Study.study_id))
    yield series.join(LabelRow, (LabelRow.level == "series") & (LabelRow.subject == Series.series_id))
    instances = series.join(Instance, Instance.series_id == Series.series_id)
    yield instances.join(LabelRow, (LabelRow.level == "instance") & (LabelRow.subject == Instance.instance_id))
