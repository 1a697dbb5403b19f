"""Filters of the worklist, and the same filters as conditions of a database query."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, CompoundSelect, Select, exists, or_, select
from sqlalchemy.orm import aliased

from pipeline.data.catalogue.effective_decision import is_last
from pipeline.data.catalogue.review_schema import CLOSED, NEW, Decision, Lease, ReadingEntry
from pipeline.data.catalogue.schema import FindingRow
from pipeline.review.locks import SECOND_OPINION
from pipeline.review.refusals import BadInput

IN_REVIEW = "in-review"
STATES = (NEW, IN_REVIEW, "confirmed", "dismissed", "unsure", "second-opinion")
_OPEN = frozenset(STATES) - set(CLOSED)
Order = Literal["priority", "newest", "oldest"]
OLDEST_HOURS = 1_000_000  # a century
_PREFIX = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True, slots=True)
class WorklistQuery:
    """Filters that a reader chose; an empty field does not filter.

    Attributes:
        states: members of STATES.
        modality, body_part, route: as displayed in the row; model: SHA-256 of the detector.
        reader: user who decided last; holder: user who has the scan now.
        search: the first 4 or more digits of a study's or patient's pseudonym.
        accession_ids: only these findings (the result of a search by accession number).
        min_age_hours, max_age_hours: bounds of the age of the scan, in hours since it arrived.
        after, before: id of the last, or first, finding of the current page, from which paging continues.
        limit: rows per page, at most 500.
        order: by priority, or by arrival: newest or oldest first.
        viewer: user who asks; the others' decisions are kept from them while the study awaits a second opinion.
    """

    states: frozenset[str] = frozenset()
    modality: str = ""
    body_part: str = ""
    route: str = ""
    model: str = ""
    reader: str = ""
    holder: str = ""
    search: str = ""
    accession_ids: Collection[int] | None = None
    min_age_hours: float | None = None
    max_age_hours: float | None = None
    after: int | None = None
    before: int | None = None
    limit: int = 50
    order: Order = "priority"
    viewer: str = ""


def narrow(
    statement: Select[Any], query: WorklistQuery, moment: datetime, withheld: Collection[int] = ()
) -> Select[Any]:
    """Apply all filters, including the state; rows in `withheld` are in that of a second opinion.

    Raises:
        BadInput: an unknown state, or a search that is not a pseudonym.
    """
    unknown = query.states - set(STATES)
    if unknown:
        raise BadInput(f"{min(unknown)[:20]!r} is not a state; use some of {', '.join(STATES)}.")
    statement = apply_filters(statement, query, moment)
    return statement.where(_in_states(query.states, moment, withheld)) if query.states else statement


def _in_states(states: frozenset[str], moment: datetime, withheld: Collection[int]) -> ColumnElement[bool]:
    """Return the condition that a row is in one of the given states.

    Undecided rows are selected by an index look-up per row instead of the set of all decided rows, which grows for
    ever. The current holder matters only if some open states are requested and others are not.
    """
    kept_back = ReadingEntry.finding_id.in_(sorted(withheld))
    conditions = [_last_said(states & set(CLOSED)) & ~kept_back] if states & set(CLOSED) else []
    still_open = states & _OPEN
    if still_open == _OPEN:
        return or_(*conditions, _undecided(), _last_said(_OPEN), kept_back)
    held = ReadingEntry.finding_id.in_(select(Lease.finding_id).where(Lease.expires_at > moment))
    if IN_REVIEW in still_open:
        conditions.append(held & or_(_undecided(), _last_said(_OPEN), kept_back))
    said = still_open - {IN_REVIEW}
    if said:
        others = [*([_undecided()] if NEW in said else []), *([kept_back] if SECOND_OPINION in said else [])]
        conditions.append(or_(*others, _last_said(said)) & ~held)
    return or_(*conditions)


def _undecided() -> ColumnElement[bool]:
    said = aliased(Decision)  # the query around it may read decisions itself
    return ~exists().where(said.finding_id == ReadingEntry.finding_id)


def _last_said(outcomes: Collection[str]) -> ColumnElement[bool]:
    last = select(Decision.finding_id).where(Decision.outcome.in_(sorted(outcomes)), is_last())
    return ReadingEntry.finding_id.in_(last)


def apply_filters(statement: Select[Any], query: WorklistQuery, moment: datetime) -> Select[Any]:
    """Apply every filter except the state."""
    columns = {"modality": "modality", "body_part": "body_part", "route": "route", "model": "model_sha256"}
    for name, column in columns.items():
        if value := getattr(query, name):
            statement = statement.where(getattr(ReadingEntry, column) == value)
    for age in (query.min_age_hours, query.max_age_hours):
        if age is not None and not 0 <= age <= OLDEST_HOURS:
            raise BadInput(f"An age must be 0 to {OLDEST_HOURS} hours. Choose another.")
    if query.min_age_hours is not None:
        statement = statement.where(ReadingEntry.arrived_at <= moment - timedelta(hours=query.min_age_hours))
    if query.max_age_hours is not None:
        statement = statement.where(ReadingEntry.arrived_at >= moment - timedelta(hours=query.max_age_hours))
    mine = ReadingEntry.finding_id
    if query.reader:
        statement = statement.where(
            mine.in_(select(Decision.finding_id).where(Decision.reader == query.reader, is_last()))
        )
    if query.holder:
        held = (Lease.holder == query.holder) & (Lease.expires_at > moment)
        statement = statement.where(mine.in_(select(Lease.finding_id).where(held)))
    if query.accession_ids is not None:
        statement = statement.where(mine.in_(sorted(query.accession_ids)))
    return statement.where(mine.in_(_named(query.search))) if query.search else statement


def _named(search: str) -> CompoundSelect[tuple[int]]:
    """Select the findings whose study or patient pseudonym has this prefix, as a range query that can use the index."""
    prefix = search.strip().lower()
    if not _PREFIX.fullmatch(prefix):
        raise BadInput("A search needs the first 4 or more digits (0-9, a-f) of a study's or patient's pseudonym.")
    end = f"{prefix}g"  # sorts after every hexadecimal digit in every collation
    study, patient = (
        select(FindingRow.id).where(column >= prefix, column < end)
        for column in (FindingRow.study_id, FindingRow.patient_id)
    )
    return study.union(patient)  # a UNION, since SQLite would answer OR by a full table scan
