"""Record of the objects exported from findings, per object and destination."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import exists, func, select

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import ExportRow, FindingRow, now


def export_states(catalogue: Catalogue, destination: str) -> dict[str, str]:
    """Return the UIDs of all objects ever made for a destination, with their states."""
    query = select(ExportRow.object_uid, ExportRow.state).where(ExportRow.destination == destination)
    with catalogue.reading() as session:
        return {uid: state for uid, state in session.execute(query)}


def find_pushed(catalogue: Catalogue, uids: Collection[str]) -> set[str]:
    """Return those of some SOP Instance UIDs that objects of ours were given, for any destination."""
    query = select(ExportRow.object_uid).where(ExportRow.object_uid.in_(uids))
    with catalogue.reading() as session:
        return set(session.scalars(query))


def note_export(
    catalogue: Catalogue,
    finding: FindingRow,
    kind: str,
    object_uid: str,
    destination: str,
    state: str,
    attempts: int = 0,
    reason: str = "",
) -> None:
    """Record the state of an object at a destination (pending, sent or failed); attempts add up."""
    query = select(ExportRow).where(ExportRow.object_uid == object_uid, ExportRow.destination == destination)
    with catalogue.session() as session:
        row = session.scalar(query)
        if row is None:
            row = ExportRow(object_uid=object_uid, destination=destination, attempts=0)
            session.add(row)
        row.finding_id, row.run_id, row.kind = finding.id, finding.run_id, kind
        row.state, row.reason, row.changed_at = state, reason, now()
        row.attempts += attempts


def count_unsent(catalogue: Catalogue, before: datetime) -> dict[str, tuple[int, str]]:
    """Return, by destination, how many objects failed, or have been pending since `before`, and their oldest run."""
    waiting = (ExportRow.state == "failed") | ((ExportRow.state == "pending") & (ExportRow.changed_at < before))
    query = select(ExportRow.destination, func.count(), func.min(ExportRow.run_id)).where(waiting)
    with catalogue.reading() as session:
        rows = session.execute(query.group_by(ExportRow.destination).order_by(ExportRow.destination))
        return {destination: (count, run_id) for destination, count, run_id in rows}


def find_unsent_runs(catalogue: Catalogue) -> list[str]:
    """Return the scoring runs with a flagged finding that has no object, or one that was not sent; oldest first."""
    exported = exists().where(ExportRow.finding_id == FindingRow.id)
    unsent = ~exported | exported.where(ExportRow.state != "sent")
    query = select(FindingRow.run_id).where(FindingRow.flagged.is_(True), unsent).group_by(FindingRow.run_id)
    with catalogue.reading() as session:
        return list(session.scalars(query.order_by(func.min(FindingRow.id))))


def list_exports(catalogue: Catalogue, run_id: str | None = None) -> Sequence[ExportRow]:
    """Return the exports, oldest first."""
    query = select(ExportRow).order_by(ExportRow.id)
    with catalogue.reading() as session:
        return list(session.scalars(query if run_id is None else query.where(ExportRow.run_id == run_id)))
