"""Rows of one patient in the catalogue, and their removal: findings and decisions stay, under the pseudonym alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.chain import Chain
from pipeline.data.catalogue.database import chunks
from pipeline.data.catalogue.erasure_schema import Erasure
from pipeline.data.catalogue.operations_schema import ScanMeasures, ScoringClaim
from pipeline.data.catalogue.retention_schema import RemovedSeries
from pipeline.data.catalogue.review_schema import AuditEntry, Decision, Draft, Lease, ReadingEntry
from pipeline.data.catalogue.schema import (
    FindingRow,
    Instance,
    InstanceVersion,
    LabelRow,
    MergedPatient,
    NotScored,
    Patient,
    RejectionRow,
    Series,
    SourceFile,
    Study,
    now,
)

Lists = dict[str, list[Any]]


def list_rows_of(session: Session, patient_id: str) -> Lists:
    """Return the pseudonyms and keys of one patient by kind.

    `pixels` are the keys of their images and masks that no other patient has, `shared` those that others have as well.
    """
    absorbed = session.scalars(select(MergedPatient.absorbed_id).where(MergedPatient.patient_id == patient_id))
    studies = _all(session, Study.study_id, Study.patient_id, [patient_id])
    series = _all(session, Series.series_id, Series.study_id, studies)
    instances = _all(session, Instance.instance_id, Instance.series_id, series)
    labelled = [patient_id, *studies, *series, *instances]
    masks = [key for key in _all(session, LabelRow.mask_key, LabelRow.subject, labelled) if key]
    keys = sorted({*_all(session, Instance.pixel_key, Instance.series_id, series), *masks})
    shared = find_shared_pixels(session, keys, set(series), set(labelled))
    return {
        "patients": [patient_id, *absorbed],
        "studies": studies,
        "series": series,
        "instances": instances,
        "paths": _all(session, SourceFile.path_id, SourceFile.instance_id, instances),
        "frames": [one for one in _all(session, Instance.frame_of_reference_id, Instance.series_id, series) if one],
        "pixels": [key for key in keys if key not in shared],
        "shared": sorted(shared),
        "findings": _all(session, FindingRow.id, FindingRow.patient_id, [patient_id]),
        "routes": _all(session, FindingRow.route, FindingRow.patient_id, [patient_id]),
        "modalities": _all(session, Series.modality, Series.series_id, series),
    }


def _all(session: Session, read: Any, column: Any, values: Iterable[str]) -> list[Any]:
    rows = {one for part in chunks(set(values)) for one in session.scalars(select(read).where(column.in_(part)))}
    return sorted(rows - {None})


def find_shared_pixels(session: Session, keys: list[str], series: set[str], labelled: set[str]) -> set[str]:
    """Return the keys of pixels or masks that belong to other series, or to labels of other subjects, too."""
    shared: set[str] = set()
    for part in chunks(set(keys)):
        rows = session.execute(select(Instance.pixel_key, Instance.series_id).where(Instance.pixel_key.in_(part)))
        shared |= {key for key, owner in rows if owner not in series}
        masks = session.execute(select(LabelRow.mask_key, LabelRow.subject).where(LabelRow.mask_key.in_(part)))
        shared |= {str(key) for key, subject in masks if subject not in labelled}
    return shared


def list_frames_of_others(session: Session, frames: Iterable[str], series: Iterable[str]) -> set[str]:
    """Return the frames of reference that images of other series have as well."""
    ours, shared = set(series), set()
    for part in chunks(set(frames)):
        query = select(Instance.frame_of_reference_id, Instance.series_id)
        rows = session.execute(query.where(Instance.frame_of_reference_id.in_(part)))
        shared |= {frame for frame, owner in rows if owner not in ours}
    return shared


def erase_rows(catalogue: Catalogue, chain: Chain, lists: Lists) -> dict[str, int]:
    """Remove a patient's rows in one transaction and return how many; a repetition removes nothing.

    Images, series, labels, refusals, drafts and entries of the reading list go, and free texts are emptied. Left are
    the pseudonyms of patient and studies, findings with their scores, decisions, and the audit log, which gets a line.
    """
    with catalogue.session() as session:
        counts = {"texts": chain.redact(session, lists["findings"])}
        for part in chunks(set(lists["instances"])):
            regions = update(Decision).where(Decision.region_instance_id.in_(part))
            session.execute(regions.values(region_instance_id=None))
        for name, table, column, values in _targets(lists):
            counts[name] = counts.get(name, 0) + _delete(session, table, column, values)
        patient = session.get(Patient, lists["patients"][0])
        if patient is not None:
            patient.set_name, patient.set_reason = None, "erased"
        if counts["instances"] or counts["texts"]:
            _log(session, chain, len(lists["findings"]), counts)
        return counts


def _targets(lists: Lists) -> list[tuple[str, Any, Any, list[Any]]]:
    """Return (name, table, column, values) of what goes, children first."""
    subjects = [*lists["patients"], *lists["studies"], *lists["series"], *lists["instances"]]
    return [
        ("drafts", Draft, Draft.finding_id, lists["findings"]),
        ("reserved", Lease, Lease.finding_id, lists["findings"]),
        ("listed", ReadingEntry, ReadingEntry.finding_id, lists["findings"]),
        ("labels", LabelRow, LabelRow.subject, subjects),
        ("refusals", RejectionRow, RejectionRow.subject, [*subjects, *lists["paths"]]),
        ("refusals", NotScored, NotScored.series_id, lists["series"]),
        ("claims", ScoringClaim, ScoringClaim.study_id, lists["studies"]),
        ("measures", ScanMeasures, ScanMeasures.study_id, lists["studies"]),
        ("files", SourceFile, SourceFile.instance_id, lists["instances"]),
        ("versions", InstanceVersion, InstanceVersion.instance_id, lists["instances"]),
        ("instances", Instance, Instance.instance_id, lists["instances"]),
        ("removals", RemovedSeries, RemovedSeries.series_id, lists["series"]),
        ("series", Series, Series.series_id, lists["series"]),
    ]


def _delete(session: Session, table: Any, column: Any, values: list[Any]) -> int:
    gone = 0
    for part in chunks(set(values)):
        gone += session.scalar(select(func.count()).select_from(table).where(column.in_(part))) or 0
        session.execute(delete(table).where(column.in_(part)).execution_options(synchronize_session=False))
    return gone


def _log(session: Session, chain: Chain, findings: int, counts: dict[str, int]) -> None:
    """Add the erasure to the audit log, whose lines never name a patient."""
    row: dict[str, Any] = {"at": now(), "user_name": "command-line", "role": "command-line", "address": "local"}
    detail = {"findings": findings, "images": counts["instances"], "texts": counts["texts"]}
    chain.append(session, AuditEntry, {**row, "action": "forget", "subject": "", "detail": detail})


def read_erasure(session: Session, patient_id: str) -> Erasure | None:
    """Return the erasure of a patient, finished or not, if there is one."""
    return session.get(Erasure, patient_id)


def list_erased(session: Session) -> set[str]:
    """Return the pseudonyms of erased patients who were not readmitted, and those that were merged into them."""
    erased = set(session.scalars(select(Erasure.patient_id).where(Erasure.readmitted_at.is_(None))))
    merged = select(MergedPatient.absorbed_id, MergedPatient.patient_id)
    return erased | {absorbed for absorbed, patient in session.execute(merged) if patient in erased}
