"""Reading decisions: the one in effect for a finding, and the last one of each reader."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import Session, aliased

from pipeline.data.catalogue.review_schema import Decision
from pipeline.data.catalogue.schema import FindingRow
from pipeline.data.catalogue.study_reading import StudyReading, read_studies


@dataclass(frozen=True, slots=True)
class Said:
    """A reader's decision in effect, with its `number` in the finding.

    Attributes:
        finding_id, number, reader, outcome: of the decision.
        blind: made without knowing the flag.
        heatmap: made with the heatmap of its study, of whichever row of the list.
        first_look: what the reader had chosen until a heatmap of the study was shown; "" for nothing.
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
    query = select(FindingRow.study_id).join(Decision, Decision.finding_id == FindingRow.id).distinct()
    if findings is not None:
        query = query.where(FindingRow.id.in_(findings))
    asked = None if findings is None else set(findings)
    said: dict[int, list[Said]] = {}
    for study in read_studies(session, session.scalars(query).all()).values():
        for one in study.listed:
            rows = [row for row in study.decisions if row.finding_id == one.finding_id]
            if rows and (asked is None or one.finding_id in asked) and (last := _by_reader(rows, study)):
                said[one.finding_id] = last
    return dict(sorted(said.items()))


def _by_reader(rows: list[Decision], study: StudyReading) -> list[Said]:
    last: dict[str, Said] = {}
    for row in standing(rows):
        about = (row.blind, study.saw_heatmap(row), study.first_look(row.reader))
        last[row.reader] = Said(row.finding_id, row.number, row.reader, row.outcome, *about)
    return list(last.values())
