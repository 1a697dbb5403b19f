"""A study's rows on the reading list, taken together: a promotion lists a study again, under the new model.

Whoever sees the result in one row knows what another row of the same study hides. So the rows of a study are revealed
together, and whether a decision was blind, or made with the heatmap, depends on all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from pipeline.data.catalogue.database import chunks
from pipeline.data.catalogue.review_schema import CLOSED, Decision, HeatmapView, ReadingEntry
from pipeline.data.catalogue.schema import FindingRow


@dataclass(frozen=True, slots=True)
class Listed:
    """One row of a study on the list, and since when."""

    finding_id: int
    blinded: bool
    listed_at: datetime


@dataclass(frozen=True, slots=True)
class StudyReading:
    """All rows of a study on the list, every decision on them, and when each reader was first shown a heatmap of it."""

    listed: tuple[Listed, ...]
    decisions: tuple[Decision, ...]
    views: dict[str, HeatmapView]

    def was_revealed(self, before: Decision | None = None) -> bool:
        """Return whether results were ever shown: a moment without a row that is blinded and open.

        `before` is a decision: only the time until it counts.
        """
        return any(
            all(not one.blinded or one.finding_id in closed for one in listed)
            for listed, closed in self._moments(before)
        )

    def outcomes(self) -> dict[int, str]:
        """Return the outcome in effect of each row that was ever decided, by finding."""
        return {row.finding_id: row.outcome for row in self.decisions}

    def is_settled(self) -> bool:
        """Return whether all rows of the study are decided now."""
        outcomes = self.outcomes()
        return bool(self.listed) and all(outcomes.get(one.finding_id) in CLOSED for one in self.listed)

    def was_settled(self, before: Decision | None = None) -> bool:
        """Return whether all rows of the study were ever decided, which shows every reader the heatmaps."""
        return any(all(one.finding_id in closed for one in listed) for listed, closed in self._moments(before))

    def saw_heatmap(self, decision: Decision) -> bool:
        """Return whether a decision was made with a heatmap of its study, of whichever row: its reader had asked for
        one, or the study had been settled before.
        """
        view = self.views.get(decision.reader)
        return (view is not None and view.seen_at <= decision.decided_at) or self.was_settled(decision)

    def first_look(self, reader: str) -> str:
        """Return what a reader had chosen until they were shown a heatmap of the study; "" for nothing."""
        view = self.views.get(reader)
        return view.first_look if view else ""

    def _moments(self, before: Decision | None) -> Iterator[tuple[list[Listed], set[int]]]:
        """Yield the rows listed and the rows decided after each change, oldest first."""
        events: list[tuple[datetime, int, int, Listed | Decision]] = [
            *((one.listed_at, 0, one.finding_id, one) for one in self.listed),
            *((row.decided_at, 1, row.id, row) for row in self.decisions),
        ]
        listed: list[Listed] = []
        closed: set[int] = set()
        for *_, event in sorted(events, key=lambda one: one[:3]):
            if before is not None and isinstance(event, Decision) and event.id == before.id:
                return
            if isinstance(event, Listed):
                listed.append(event)
            elif event.outcome in CLOSED:
                closed.add(event.finding_id)
            else:
                closed.discard(event.finding_id)
            if listed:
                yield listed, closed


def read_studies(session: Session, study_ids: Collection[str]) -> dict[str, StudyReading]:
    """Return the reading of each of these studies that is on the list, or was when somebody decided."""
    listed: dict[str, list[Listed]] = {}
    decisions: dict[str, list[Decision]] = {}
    views: dict[str, dict[str, HeatmapView]] = {}
    for part in chunks(set(study_ids)):
        columns = (FindingRow.study_id, ReadingEntry.finding_id, ReadingEntry.blinded, ReadingEntry.listed_at)
        for study_id, *values in session.execute(_of(part, select(*columns), ReadingEntry)):
            listed.setdefault(study_id, []).append(Listed(*values))
        of_decisions = _of(part, select(FindingRow.study_id, Decision), Decision).order_by(Decision.id)
        for study_id, row in session.execute(of_decisions):
            decisions.setdefault(study_id, []).append(row)
            rows = listed.setdefault(study_id, [])
            if all(one.finding_id != row.finding_id for one in rows):  # erased from the list since
                rows.append(Listed(row.finding_id, True, row.decided_at))
        of_views = _of(part, select(FindingRow.study_id, HeatmapView), HeatmapView).order_by(HeatmapView.seen_at)
        for study_id, view in session.execute(of_views):
            views.setdefault(study_id, {}).setdefault(view.reader, view)
    return {
        study_id: StudyReading(tuple(rows), tuple(decisions.get(study_id, ())), views.get(study_id, {}))
        for study_id, rows in listed.items()
    }


def read_study(session: Session, study_id: str) -> StudyReading:
    """Return the reading of one study, without rows if it is not on the list."""
    return read_studies(session, [study_id]).get(study_id, StudyReading((), (), {}))


def _of(studies: Sequence[str], query: Select[Any], table: type[Any]) -> Select[Any]:
    return query.join(FindingRow, FindingRow.id == table.finding_id).where(FindingRow.study_id.in_(studies))
