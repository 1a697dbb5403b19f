"""Number of rows of the worklist in each state, as far as whoever asks may see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import datetime

from sqlalchemy import and_, case, func, or_, select
from sqlalchemy.orm import Session, aliased

from pipeline.data.catalogue.effective_decision import is_last
from pipeline.data.catalogue.review_schema import CLOSED, NEW, Decision, Lease, ReadingEntry
from pipeline.review.locks import SECOND_OPINION
from pipeline.review.worklist_query import IN_REVIEW, STATES, WorklistQuery, apply_filters


def count_states(session: Session, query: WorklistQuery, moment: datetime, withheld: Collection[int]) -> dict[str, int]:
    """Return the number of rows in each state, and in "all", under the query's other filters.

    The decided rows in `withheld` count as rows that await a second opinion.
    """
    whole = session.scalar(apply_filters(select(func.count()).select_from(ReadingEntry), query, moment)) or 0
    counts = dict.fromkeys(STATES, 0) | dict(_decided(session, query, moment)) | {"all": whole}
    for outcome, count in _reading_now(session, query, moment):
        counts[outcome] -= count
        counts[IN_REVIEW] += count
    for outcome, is_held in _outcomes_of(session, query, moment, withheld):
        counts[outcome] -= 1
        counts[IN_REVIEW if is_held else SECOND_OPINION] += 1
    counts[NEW] += whole - sum(counts[state] for state in STATES)
    return counts


def _outcomes_of(
    session: Session, query: WorklistQuery, moment: datetime, findings: Collection[int]
) -> list[tuple[str, bool]]:
    """Return the outcome of each of these decided rows, and whether somebody has leased it now."""
    if not findings:
        return []
    rows = (
        select(Decision.outcome, Lease.holder)
        .select_from(ReadingEntry)
        .join(Decision, and_(Decision.finding_id == ReadingEntry.finding_id, is_last()))
        .outerjoin(Lease, and_(Lease.finding_id == ReadingEntry.finding_id, Lease.expires_at > moment))
        .where(ReadingEntry.finding_id.in_(findings))
    )
    return [(outcome, holder is not None) for outcome, holder in session.execute(apply_filters(rows, query, moment))]


def _decided(session: Session, query: WorklistQuery, moment: datetime) -> Counter[str]:
    """Return the number of rows whose last decision has each outcome: all decisions minus the few with a successor."""
    later = aliased(Decision)
    every = select(Decision.outcome, func.count()).select_from(Decision)
    followed = every.join(later, (later.finding_id == Decision.finding_id) & (later.number == Decision.number + 1))
    if query != WorklistQuery(
        states=query.states,
        viewer=query.viewer,
        after=query.after,
        before=query.before,
        limit=query.limit,
        order=query.order,
    ):
        every, followed = (
            apply_filters(counted.join(ReadingEntry, ReadingEntry.finding_id == Decision.finding_id), query, moment)
            for counted in (every, followed)
        )
    counts: Counter[str] = Counter({row[0]: row[1] for row in session.execute(every.group_by(Decision.outcome))})
    counts.subtract(
        {row[0]: row[1] for row in session.execute(followed.where(later.number > 1).group_by(Decision.outcome))}
    )
    return counts


def _reading_now(session: Session, query: WorklistQuery, moment: datetime) -> list[tuple[str, int]]:
    """Return the number of open rows of each outcome that somebody has leased now."""
    outcome = case((Decision.outcome.is_(None), NEW), else_=Decision.outcome)
    counted = (
        select(outcome, func.count())
        .select_from(Lease)
        .join(ReadingEntry, ReadingEntry.finding_id == Lease.finding_id)
        .outerjoin(Decision, and_(Decision.finding_id == Lease.finding_id, is_last()))
        .where(Lease.expires_at > moment, or_(Decision.outcome.is_(None), Decision.outcome.not_in(CLOSED)))
    )
    return [(row[0], row[1]) for row in session.execute(apply_filters(counted, query, moment).group_by(outcome))]
