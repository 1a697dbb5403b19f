"""What a reader asks the worklist for, and the same as conditions of a query."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, or_, select

from pipeline.data.decisions import CLOSED, NEW, is_last
from pipeline.data.review_schema import Decision, Lease, ReadingEntry
from pipeline.data.schema import FindingRow
from pipeline.review.refusals import BadInput

IN_REVIEW = "in-review"
STATES = (NEW, IN_REVIEW, "confirmed", "dismissed", "unsure", "second-opinion")
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
    return wanted.where(or_(*(_in_state(state, moment) for state in sorted(query.states)))) if query.states else wanted


def _in_state(state: str, moment: datetime) -> ColumnElement[bool]:
    mine = ReadingEntry.finding_id
    held = mine.in_(select(Lease.finding_id).where(Lease.expires_at > moment))
    closed = mine.in_(select(Decision.finding_id).where(Decision.outcome.in_(CLOSED), is_last()))
    if state == IN_REVIEW:
        return held & ~closed
    if state == NEW:
        said = mine.in_(select(Decision.finding_id).where(Decision.outcome != NEW, is_last()))
        return ~said & ~held
    said = mine.in_(select(Decision.finding_id).where(Decision.outcome == state, is_last()))
    return said if state in CLOSED else said & ~held


def filtered(wanted: Select[Any], query: WorklistQuery, moment: datetime) -> Select[Any]:
    """Apply every filter but the state."""
    columns = {"modality": "modality", "body_part": "body_part", "route": "route", "model": "model_sha256"}
    for name, column in columns.items():
        if value := getattr(query, name):
            wanted = wanted.where(getattr(ReadingEntry, column) == value)
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


def _named(search: str) -> Select[tuple[int]]:
    """Select the findings whose study's or patient's pseudonym begins so; a range, so that the index serves."""
    prefix = search.strip().lower()
    if not _PREFIX.fullmatch(prefix):
        raise BadInput("A search wants the first 4 or more digits (0-9, a-f) of a study's or patient's pseudonym.")
    end = f"{prefix}g"  # after every hexadecimal digit, in every collation
    columns = (FindingRow.study_id, FindingRow.patient_id)
    return select(FindingRow.id).where(or_(*(and_(column >= prefix, column < end) for column in columns)))
