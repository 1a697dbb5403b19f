"""What a reader asks the worklist for, and the same as conditions of a query."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Select, exists, or_, select
from sqlalchemy.orm import aliased

from pipeline.data.catalogue.effective_decision import CLOSED, NEW, is_last
from pipeline.data.catalogue.review_schema import Decision, Lease, ReadingEntry
from pipeline.data.catalogue.schema import FindingRow
from pipeline.review.refusals import BadInput

IN_REVIEW = "in-review"
STATES = (NEW, IN_REVIEW, "confirmed", "dismissed", "unsure", "second-opinion")
_OPEN = frozenset(STATES) - set(CLOSED)
OLDEST_HOURS = 1_000_000  # a century
_PREFIX = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True, slots=True)
class WorklistQuery:
    """What a reader asks for; empty fields ask for everything.

    Attributes:
        states: of STATES.
        modality, body_part, route: as the row shows them; model: SHA-256 of the detector.
        reader: who decided last; holder: who has it now.
        search: the first 4 or more digits of a study's or patient's pseudonym.
        accession_ids: only these (what `by_accession` found).
        min_age_hours, max_age_hours: age of the scan, in hours since it arrived, at least and at most.
        after, before: id of the last, or first, finding that is shown: the page goes on from there.
        limit: rows of a page, at most 500.
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


def narrowed(wanted: Select[Any], query: WorklistQuery, moment: datetime) -> Select[Any]:
    """Apply all filters, state too (BadInput: an unknown state, or a search that is no pseudonym)."""
    unknown = query.states - set(STATES)
    if unknown:
        raise BadInput(f"{min(unknown)[:20]!r} is no state; use some of {', '.join(STATES)}.")
    wanted = filtered(wanted, query, moment)
    return wanted.where(_in_states(query.states, moment)) if query.states else wanted


def _in_states(states: frozenset[str], moment: datetime) -> ColumnElement[bool]:
    """Return the condition of being in one of some states.

    Rows that nobody decided are found by one look into an index, not by the set of all that were decided: that set
    grows for ever. Who holds what matters only where some open states are asked for and others are not.
    """
    found = [_last_said(states & set(CLOSED))] if states & set(CLOSED) else []
    still_open = states & _OPEN
    if still_open == _OPEN:
        return or_(*found, _undecided(), _last_said(_OPEN))
    held = ReadingEntry.finding_id.in_(select(Lease.finding_id).where(Lease.expires_at > moment))
    if IN_REVIEW in still_open:
        found.append(held & or_(_undecided(), _last_said(_OPEN)))
    said = still_open - {IN_REVIEW}
    if said:
        undecided = [_undecided()] if NEW in said else []
        found.append(or_(*undecided, _last_said(said)) & ~held)
    return or_(*found)


def _undecided() -> ColumnElement[bool]:
    said = aliased(Decision)  # the query around it may read decisions itself
    return ~exists().where(said.finding_id == ReadingEntry.finding_id)


def _last_said(outcomes: Collection[str]) -> ColumnElement[bool]:
    last = select(Decision.finding_id).where(Decision.outcome.in_(sorted(outcomes)), is_last())
    return ReadingEntry.finding_id.in_(last)


def filtered(wanted: Select[Any], query: WorklistQuery, moment: datetime) -> Select[Any]:
    """Apply every filter but the state."""
    columns = {"modality": "modality", "body_part": "body_part", "route": "route", "model": "model_sha256"}
    for name, column in columns.items():
        if value := getattr(query, name):
            wanted = wanted.where(getattr(ReadingEntry, column) == value)
    for age in (query.min_age_hours, query.max_age_hours):
        if age is not None and not 0 <= age <= OLDEST_HOURS:
            raise BadInput(f"An age is 0 to {OLDEST_HOURS} hours; ask for another.")
    if query.min_age_hours is not None:
        wanted = wanted.where(ReadingEntry.arrived_at <= moment - timedelta(hours=query.min_age_hours))
    if query.max_age_hours is not None:
        wanted = wanted.where(ReadingEntry.arrived_at >= moment - timedelta(hours=query.max_age_hours))
    mine = ReadingEntry.finding_id
    if query.reader:
        wanted = wanted.where(mine.in_(select(Decision.finding_id).where(Decision.reader == query.reader, is_last())))
    if query.holder:
        held = (Lease.holder == query.holder) & (Lease.expires_at > moment)
        wanted = wanted.where(mine.in_(select(Lease.finding_id).where(held)))
    if query.accession_ids is not None:
        wanted = wanted.where(mine.in_(sorted(query.accession_ids)))
    return wanted.where(mine.in_(_named(query.search))) if query.search else wanted


def _named(search: str) -> CompoundSelect[tuple[int]]:
    """Select the findings whose study's or patient's pseudonym begins so; a range, so that the index serves."""
    prefix = search.strip().lower()
    if not _PREFIX.fullmatch(prefix):
        raise BadInput("A search wants the first 4 or more digits (0-9, a-f) of a study's or patient's pseudonym.")
    end = f"{prefix}g"  # after every hexadecimal digit, in every collation
    study, patient = (
        select(FindingRow.id).where(column >= prefix, column < end)
        for column in (FindingRow.study_id, FindingRow.patient_id)
    )
    return study.union(patient)  # not OR, which SQLite answers by reading every finding
