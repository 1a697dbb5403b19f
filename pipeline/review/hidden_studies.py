"""Studies whose results are hidden: one row of theirs on the list is read blind, and is not decided yet."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Select, and_, func, or_, select
from sqlalchemy.orm import Session, aliased

from pipeline.data.catalogue.database import chunks
from pipeline.data.catalogue.effective_decision import is_last
from pipeline.data.catalogue.review_schema import CLOSED, Decision, ReadingEntry, ReadingFrame
from pipeline.data.catalogue.schema import FindingRow, RunRow
from pipeline.errors import RejectionCode


def find_hidden(session: Session, study_ids: Collection[str]) -> set[str]:
    """Return those of the studies that no row of the list shows a result of."""
    hidden: set[str] = set()
    for part in chunks(set(study_ids)):
        hidden |= set(session.scalars(_blind_and_open(FindingRow.study_id).where(FindingRow.study_id.in_(part))))
    return hidden


def list_hidden_runs(session: Session) -> frozenset[str]:
    """Return the runs that have scored a study whose results are hidden, whether they listed it or another run did.

    A finding that is scored again moves to the later run, but the count of the earlier one still includes it. Runs keep
    no record of that, so all of the route's runs from the finding's first until its last are returned.
    """
    first, last = aliased(RunRow), aliased(RunRow)
    query = (
        select(FindingRow.route, func.coalesce(first.started_at, last.started_at), last.started_at)
        .join(last, last.run_id == FindingRow.run_id)
        .outerjoin(ReadingFrame, ReadingFrame.finding_id == FindingRow.id)
        .outerjoin(first, first.run_id == ReadingFrame.run_id)
        .where(FindingRow.study_id.in_(_blind_and_open(FindingRow.study_id)))
    )
    spans = session.execute(query.distinct()).all()
    runs = session.execute(select(RunRow.run_id, RunRow.route, RunRow.started_at).where(RunRow.kind == "score"))
    return frozenset(
        run_id
        for run_id, route, started in runs
        if any(route == of and begin <= started <= end for of, begin, end in spans)
    )


def list_hidden_codes(is_blind: bool) -> tuple[str, ...]:
    """Return the codes of refusals that readers are not told of: objects of ours, and while a scan is read blind also
    reports, segmentations and the like of any maker, since a gateway may have taken our marks off some of them.
    """
    return (RejectionCode.MADE_HERE.value, *((RejectionCode.NOT_AN_IMAGE.value,) if is_blind else ()))


def find_other_rows(session: Session, finding_id: int) -> list[tuple[int, bool]]:
    """Return the other rows of a finding's study on the list, each with whether it is decided."""
    study = select(FindingRow.study_id).where(FindingRow.id == finding_id).scalar_subquery()
    query = _rows(ReadingEntry.finding_id, Decision.outcome).where(
        FindingRow.study_id == study, FindingRow.id != finding_id
    )
    rows = session.execute(query.order_by(ReadingEntry.finding_id))
    return [(number, outcome in CLOSED) for number, outcome in rows]


def _blind_and_open(*columns: Any) -> Select[Any]:
    undecided = or_(Decision.outcome.is_(None), Decision.outcome.not_in(CLOSED))
    return _rows(*columns).where(ReadingEntry.blinded, undecided)


def _rows(*columns: Any) -> Select[Any]:
    """Select from the rows of the list with their last decision."""
    return (
        select(*columns)
        .select_from(FindingRow)
        .join(ReadingEntry, ReadingEntry.finding_id == FindingRow.id)
        .outerjoin(Decision, and_(Decision.finding_id == ReadingEntry.finding_id, is_last()))
    )
