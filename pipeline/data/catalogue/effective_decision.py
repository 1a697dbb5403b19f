"""Reading decisions: the one in effect for a finding, and the last one of each reader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import Session, aliased

from pipeline.data.catalogue.review_schema import Decision, HeatmapView

NEW = "new"
OUTCOMES = ("confirmed", "dismissed", "unsure", "second-opinion")
CLOSED = ("confirmed", "dismissed", "unsure")  # after these the reader is shown the model's result


@dataclass(frozen=True, slots=True)
class Said:
    """A reader's decision in effect, with its `number` in the finding.

    Attributes:
        finding_id, number, reader, outcome: of the decision.
        blind: made without knowing the flag.
        heatmap: made with the heatmap.
        first_look: what the reader had chosen until the heatmap was shown; "" for nothing.
    """

    finding_id: int
    number: int
    reader: str
    outcome: str
    blind: bool
    heatmap: bool = False
    first_look: str = ""


def read_last_decision(session: Session, finding_id: int) -> Decision | None:
    """Return the newest decision row of a finding: its `outcome` is in effect."""
    query = select(Decision).where(Decision.finding_id == finding_id).order_by(Decision.number.desc()).limit(1)
    return session.scalar(query)


def is_last() -> ColumnElement[bool]:
    """Return the condition that no newer row of the same finding exists."""
    later = aliased(Decision)
    return ~exists().where(later.finding_id == Decision.finding_id, later.number > Decision.number)


def standing(rows: Iterable[Decision]) -> list[Decision]:
    """Return the decisions of one finding that were not withdrawn, oldest first, without the withdrawals themselves."""
    decisions = list(rows)
    withdrawn = {row.withdraws for row in decisions}
    return [row for row in decisions if row.withdraws is None and row.id not in withdrawn]


def read_what_readers_said(session: Session, findings: Sequence[int] | None = None) -> dict[int, list[Said]]:
    """Return, per finding, the last decision in effect of each reader, in the order of their first decisions."""
    query = select(Decision).order_by(Decision.finding_id, Decision.number)
    if findings is not None:
        query = query.where(Decision.finding_id.in_(findings))
    rows: dict[int, list[Decision]] = {}
    for row in session.scalars(query):
        rows.setdefault(row.finding_id, []).append(row)
    views = {(view.finding_id, view.reader): view for view in session.scalars(select(HeatmapView))}
    return {finding_id: said for finding_id, of_one in rows.items() if (said := _by_reader(of_one, views))}


def saw_heatmap(row: Decision, rows: Iterable[Decision], view: HeatmapView | None) -> bool:
    """Return whether a decision was made with the heatmap: the reader had asked for it, or the scan was decided before.

    Args:
        row: the decision.
        rows: all decisions on its finding.
        view: when its reader was first shown the heatmap.
    """
    shown_before = view is not None and view.seen_at <= row.decided_at
    return shown_before or any(earlier.outcome in CLOSED for earlier in rows if earlier.number < row.number)


def _by_reader(rows: list[Decision], views: Mapping[tuple[int, str], HeatmapView]) -> list[Said]:
    last: dict[str, Said] = {}
    for row in standing(rows):
        view = views.get((row.finding_id, row.reader))
        heatmap, first_look = saw_heatmap(row, rows, view), view.first_look if view else ""
        last[row.reader] = Said(row.finding_id, row.number, row.reader, row.outcome, row.blind, heatmap, first_look)
    return list(last.values())
