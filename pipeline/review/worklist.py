"""Worklist: rows in order of priority, filtered and paged by the database, and blinded before a decision.

A row's state is never stored but derived from its last decision and its lease. Until a row is revealed, nothing here
distinguishes a flagged finding from a sampled one: both have None as p-value and score, and position, ids and counts do
not differ. The rows of a study are revealed together, once all of them are decided (confirmed, dismissed or unsure), or
from the start if sampling is off: a study that two models have listed would show in one row what the other hides.
While one row of a study awaits a second opinion, its other rows say so too to everybody but who decided them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, select, tuple_
from sqlalchemy import Row as Found
from sqlalchemy.orm import Session

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.effective_decision import is_last
from pipeline.data.catalogue.review_schema import CLOSED, NEW, Decision, Lease, ReadingEntry
from pipeline.data.catalogue.schema import FindingRow, RunRow, now
from pipeline.review.accession import Accession
from pipeline.review.hidden_studies import find_hidden, find_other_rows, list_hidden_runs
from pipeline.review.locks import SECOND_OPINION
from pipeline.review.permissions import Actor
from pipeline.review.refusals import check_id, unknown
from pipeline.review.second_opinions import find_withheld
from pipeline.review.state_counts import count_states
from pipeline.review.worklist_query import IN_REVIEW, STATES, WorklistQuery, narrow
from pipeline.stages.operations.flagged_list import in_words

__all__ = ["STATES", "Facets", "Page", "Row", "Worklist", "WorklistQuery"]
MOST_ROWS = 500
FACETS_S = 30.0  # longest age of the cached filter choices


@dataclass(frozen=True, slots=True)
class Row:
    """One row; `words`, `p_value` and `score` stay None until it is revealed. `decision_id` is the `seen` value of a
    form.
    """

    finding_id: int
    study_id: str
    patient_id: str
    modality: str
    body_part: str
    route: str
    model: str
    model_sha256: str
    run_id: str
    arrived_at: datetime
    age_hours: float
    scored_at: datetime
    state: str
    holder: str
    held_until: datetime | None
    assigned: bool
    decided_by: str
    decided_at: datetime | None
    decision_id: int
    revealed: bool
    words: str | None
    p_value: float | None
    score: float | None


@dataclass(frozen=True, slots=True)
class Page:
    """Rows in order of priority, and whether there are more before and after."""

    rows: tuple[Row, ...]
    has_next: bool
    has_previous: bool


@dataclass(frozen=True, slots=True)
class Facets:
    """The values that the filters can choose among; `model` holds SHA-256s."""

    modality: tuple[str, ...]
    body_part: tuple[str, ...]
    route: tuple[str, ...]
    model: tuple[str, ...]


_BY_PRIORITY = (ReadingEntry.place, ReadingEntry.tie, ReadingEntry.finding_id)
_BY_ARRIVAL = (ReadingEntry.arrived_at, ReadingEntry.finding_id)


class Worklist:
    """Query the worklist."""

    def __init__(self, catalogue: Catalogue, accession: Accession) -> None:
        self._catalogue, self._accession = catalogue, accession
        self._facets: tuple[float, Facets] | None = None
        self._lock = threading.Lock()

    def read_page(self, query: WorklistQuery) -> Page:
        """Return one page.

        Raises:
            BadInput: an unknown state, or a search that is not a pseudonym.
            UnknownFinding: `after` or `before` is not on the list.
        """
        limit, moment = max(1, min(query.limit, MOST_ROWS)), now()
        backwards = query.before is not None
        with self._catalogue.reading() as session:
            withheld = find_withheld(session, query.viewer)
            statement = _paged(session, narrow(_rows(moment), query, moment, withheld), query).limit(limit + 1)
            matches = session.execute(statement).all()
            more, matches = len(matches) > limit, matches[:limit]
            has_others = self._others(session, query, moment, matches, withheld)
            hidden = find_hidden(session, {match.study_id for match in matches})
        rows = tuple(_row(row, moment, hidden, withheld) for row in (reversed(matches) if backwards else matches))
        return Page(rows, *((has_others, more) if backwards else (more, has_others)))

    def count_states(self, query: WorklistQuery) -> dict[str, int]:
        """Return the number of rows in each state, and in "all", under the query's other filters."""
        moment = now()
        with self._catalogue.reading() as session:
            return count_states(session, query, moment, find_withheld(session, query.viewer))

    def facets(self) -> Facets:
        """Return the choices of the filters, cached for half a minute."""
        with self._lock:
            if self._facets is None or time.monotonic() - self._facets[0] > FACETS_S:
                self._facets = (time.monotonic(), self._read_facets())
            return self._facets[1]

    def read_row(self, finding_id: int, viewer: str = "") -> Row:
        """Return one row as `viewer` may see it (UnknownFinding if it is not on the list)."""
        moment = now()
        with self._catalogue.reading() as session:
            match = session.execute(_rows(moment).where(ReadingEntry.finding_id == check_id(finding_id))).first()
            if match is None:
                raise unknown(finding_id)
            hidden = find_hidden(session, [match.study_id])
            return _row(match, moment, hidden, find_withheld(session, viewer, match.study_id))

    def list_other_rows(self, finding_id: int) -> list[tuple[int, bool]]:
        """Return the other rows of this study on the list, each with whether it is decided."""
        with self._catalogue.reading() as session:
            return find_other_rows(session, check_id(finding_id))

    def find_neighbours(self, finding_id: int, query: WorklistQuery) -> tuple[int | None, int | None]:
        """Return the findings before and after one under the query's filters; None at either end."""
        moment = now()
        with self._catalogue.reading() as session:
            ids = narrow(select(ReadingEntry.finding_id), query, moment, find_withheld(session, query.viewer))
            before, after = (
                session.scalar(_ordered(ids.where(_beyond(session, finding_id, query, on)), query, on).limit(1))
                for on in (False, True)
            )
        return before, after

    def list_blind_runs(self) -> frozenset[str]:
        """Return the scoring runs with scans that are still read blind, under this model or another."""
        with self._catalogue.reading() as session:
            return list_hidden_runs(session)

    def by_accession(self, number: str, actor: Actor) -> tuple[int, ...]:
        """Return the findings of a study by its accession number: see `Accession.find`."""
        return self._accession.find(number, actor)

    def _others(
        self, session: Session, query: WorklistQuery, moment: datetime, matches: Any, withheld: Collection[int]
    ) -> bool:
        """Return whether rows exist on the side from which the reader came."""
        if query.after is None and query.before is None:
            return False
        if not matches:
            return True
        beyond = _beyond(session, matches[0].finding_id, query, query.before is not None)
        statement = narrow(select(ReadingEntry.finding_id), query, moment, withheld).where(beyond)
        return session.scalar(statement.limit(1)) is not None

    def _read_facets(self) -> Facets:
        names = ("modality", "body_part", "route", "model_sha256")
        with self._catalogue.reading() as session:
            columns = (session.scalars(select(getattr(ReadingEntry, name)).distinct()).all() for name in names)
            return Facets(*(tuple(sorted(filter(None, values))) for values in columns))


def _rows(moment: datetime) -> Select[Any]:
    """Select all columns that a row needs."""
    return (
        select(
            ReadingEntry,
            *(FindingRow.study_id, FindingRow.patient_id, FindingRow.run_id, FindingRow.scored_at, FindingRow.p_value),
            *(FindingRow.score, FindingRow.n_calibration, FindingRow.guarantee, RunRow.folder),
            *(Lease.holder, Lease.expires_at, Lease.assigned, Decision.id.label("decision_id"), Decision.outcome),
            *(Decision.reader, Decision.decided_at, ReadingEntry.finding_id),
        )
        .join(FindingRow, FindingRow.id == ReadingEntry.finding_id)
        .join(RunRow, RunRow.run_id == FindingRow.run_id)
        .outerjoin(Lease, and_(Lease.finding_id == ReadingEntry.finding_id, Lease.expires_at > moment))
        .outerjoin(Decision, and_(Decision.finding_id == ReadingEntry.finding_id, is_last()))
    )


def _paged(session: Session, statement: Select[Any], query: WorklistQuery) -> Select[Any]:
    if query.before is not None:
        return _ordered(statement.where(_beyond(session, query.before, query, False)), query, False)
    if query.after is not None:
        statement = statement.where(_beyond(session, query.after, query, True))
    return _ordered(statement, query, True)


def _columns(query: WorklistQuery) -> tuple[Any, ...]:
    return _BY_PRIORITY if query.order == "priority" else _BY_ARRIVAL


def _ordered(statement: Select[Any], query: WorklistQuery, forwards: bool) -> Select[Any]:
    """Sort by the query's order, or against it."""
    ascending = forwards != (query.order == "newest")
    return statement.order_by(*(column if ascending else column.desc() for column in _columns(query)))


def _beyond(session: Session, finding_id: int, query: WorklistQuery, forwards: bool) -> ColumnElement[bool]:
    """Return the condition that a row comes after a finding in the query's order, or before it."""
    columns = _columns(query)
    match = session.execute(select(*columns).where(ReadingEntry.finding_id == check_id(finding_id))).first()
    if match is None:
        raise unknown(finding_id)
    here, place = tuple_(*columns), tuple(match)
    return here > place if forwards != (query.order == "newest") else here < place


def _row(match: Found[Any], moment: datetime, hidden: Collection[str], withheld: Collection[int]) -> Row:
    entry: ReadingEntry = match[0]
    kept_back = entry.finding_id in withheld
    outcome = SECOND_OPINION if kept_back else match.outcome or NEW
    revealed = match.study_id not in hidden
    return Row(
        finding_id=entry.finding_id,
        study_id=match.study_id,
        patient_id=match.patient_id,
        modality=entry.modality,
        body_part=entry.body_part,
        route=entry.route,
        model=Path(match.folder).name,
        model_sha256=entry.model_sha256,
        run_id=match.run_id,
        arrived_at=entry.arrived_at,
        age_hours=(moment - entry.arrived_at).total_seconds() / 3600,
        scored_at=match.scored_at,
        state=IN_REVIEW if match.holder and outcome not in CLOSED else outcome,
        holder=match.holder or "",
        held_until=match.expires_at,
        assigned=bool(match.assigned),
        decided_by="" if kept_back else match.reader or "",
        decided_at=None if kept_back else match.decided_at,
        decision_id=match.decision_id or 0,
        revealed=revealed,
        words=in_words(match.p_value, match.n_calibration, match.guarantee) if revealed else None,
        p_value=match.p_value if revealed else None,
        score=match.score if revealed else None,
    )
