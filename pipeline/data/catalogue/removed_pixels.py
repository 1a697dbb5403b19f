"""Series whose pixels retention has removed, and patients whose data must stay, as the catalogue records them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from pipeline.data.catalogue.database import chunks
from pipeline.data.catalogue.refuse_again import judge_again
from pipeline.data.catalogue.retention_schema import LegalHold, RemovedSeries
from pipeline.data.catalogue.schema import FindingRow, Patient, Series, Study, now
from pipeline.errors import CatalogueError, RejectionCode


def read_removals(session: Session, series_ids: Iterable[str]) -> dict[str, datetime]:
    """Return when the pixels of series were removed (UTC), for those of the series whose pixels were."""
    removals: dict[str, datetime] = {}
    for part in chunks(set(series_ids)):
        query = select(RemovedSeries.series_id, RemovedSeries.removed_at).where(RemovedSeries.series_id.in_(part))
        removals |= {series_id: at for series_id, at in session.execute(query)}
    return removals


def has_removals(session: Session) -> bool:
    """Return whether the pixels of any series were removed."""
    return session.scalar(select(RemovedSeries.series_id).limit(1)) is not None


def read_removed_on(session: Session, study_id: str) -> str | None:
    """Return the day on which pixels of a study were last removed, as 2026-01-31; None if they never were."""
    query = select(RemovedSeries.removed_at).join(Series, Series.series_id == RemovedSeries.series_id)
    at = session.scalar(query.where(Series.study_id == study_id).order_by(RemovedSeries.removed_at.desc()).limit(1))
    return None if at is None else f"{at:%Y-%m-%d}"


def find_removal_of(session: Session, finding: FindingRow) -> str | None:
    """Return the day on which pixels that a finding rests on were removed, as 2026-01-31; None if they are there."""
    removals = read_removals(session, [str(one.get("series_id", "")) for one in finding.evidence])
    return f"{max(removals.values()):%Y-%m-%d}" if removals else None


def say_removed(day: str) -> str:
    """Return the sentence that every page and command says of a scan whose pixels are gone."""
    return f"The images of this scan were removed by retention on {day}; findings and decisions stay."


def mark_removed(session: Session, series_ids: Collection[str], run: str) -> None:
    """Record that the pixels of series are gone; those that are recorded already stay as they are."""
    done = read_removals(session, series_ids)
    rows = [{"series_id": one, "removed_at": now(), "run": run} for one in sorted(set(series_ids) - set(done))]
    if rows:
        session.execute(insert(RemovedSeries), rows)


def unmark_removed(session: Session, series_ids: Iterable[str]) -> None:
    """Record that the pixels of series are not removed."""
    for part in chunks(set(series_ids)):
        session.execute(delete(RemovedSeries).where(RemovedSeries.series_id.in_(part)))


def readmit_study(session: Session, study_id: str) -> int:
    """Let files of a study in again, and return of how many series the pixels had been removed.

    Raises:
        CatalogueError: none had.
    """
    series = session.scalars(select(Series.series_id).where(Series.study_id == study_id)).all()
    removals = read_removals(session, series)
    if not removals:
        raise CatalogueError(
            f"No pixels of the study {study_id[:12]!r} were removed by retention. Give the study's whole pseudonym, as "
            "nightread audit show FINDING --json prints it."
        )
    unmark_removed(session, removals)
    judge_again(session, RejectionCode.REMOVED)
    return len(removals)


def list_holds(session: Session) -> list[LegalHold]:
    """Return the holds that are in effect, oldest first."""
    return list(session.scalars(select(LegalHold).where(LegalHold.released_at.is_(None)).order_by(LegalHold.id)))


def list_patients_on_hold(session: Session) -> set[str]:
    """Return the pseudonyms of the patients whose data must stay."""
    return {hold.patient_id for hold in list_holds(session)}


def list_series_on_hold(session: Session, series_ids: Iterable[str]) -> dict[str, str]:
    """Return those of the series whose patients' data must stay, each with its study."""
    held = list_patients_on_hold(session)
    series: dict[str, str] = {}
    for part in chunks(set(series_ids)):
        query = select(Series.series_id, Series.study_id).join(Study, Study.study_id == Series.study_id)
        rows = session.execute(query.where(Series.series_id.in_(part), Study.patient_id.in_(held)))
        series |= {series_id: study_id for series_id, study_id in rows}
    return series


def find_patient_of(session: Session, name: str) -> str:
    """Return the patient whose whole pseudonym this is, or that of the patient of a finding given by its number.

    Raises:
        CatalogueError: neither is in the catalogue.
    """
    finding = session.get(FindingRow, int(name)) if name.isascii() and name.isdigit() and len(name) < 10 else None
    patient = session.get(Patient, finding.patient_id if finding is not None else name)
    if patient is None:
        raise CatalogueError(
            f"The catalogue has neither a finding nor a patient {name[:12]!r}. Give the number of one of the patient's "
            "findings, or the patient's whole pseudonym; nightread audit show FINDING --json prints both."
        )
    return patient.patient_id


def place_hold(session: Session, patient_id: str, why: str) -> None:
    """Keep a patient's data until the hold is released.

    Raises:
        CatalogueError: there is no reason, or the patient is on hold already.
    """
    if not why.strip():
        raise CatalogueError("A legal hold needs a reason, such as the number of the case. Give it with --why")
    if patient_id in list_patients_on_hold(session):
        raise CatalogueError(
            f"The patient {patient_id[:12]} is on legal hold already. List the holds: nightread retention holds"
        )
    session.add(LegalHold(patient_id=patient_id, why=why.strip()))


def release_hold(session: Session, patient_id: str) -> None:
    """End the hold on a patient's data.

    Raises:
        CatalogueError: the patient is not on hold.
    """
    holds = [hold for hold in list_holds(session) if hold.patient_id == patient_id]
    if not holds:
        raise CatalogueError(
            f"The patient {patient_id[:12]} is not on legal hold. List the holds: nightread retention holds"
        )
    for hold in holds:
        hold.released_at = now()


def refuse_held(session: Session, patient_id: str) -> None:
    """Raise a CatalogueError if a patient's data is on legal hold, which an erasure must not overrule."""
    if patient_id in list_patients_on_hold(session):
        raise CatalogueError(
            f"The patient {patient_id[:12]} is on legal hold, so nothing of theirs is erased. If the hold has ended, "
            f"run nightread retention release {patient_id}, and erase then"
        )
