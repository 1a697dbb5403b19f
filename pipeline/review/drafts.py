"""Drafts of decisions: all that a reader typed is kept until it is signed, for each window by itself.

A window replaces and deletes its own draft only. A text that it was opened with, and that another window typed, is a
copy: that other draft stays until its reader discards it, or signs its very words. Every save is a new version.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, or_, select
from sqlalchemy.orm import Session

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.effective_decision import read_last_decision
from pipeline.data.catalogue.review_schema import OUTCOMES, Decision, ReadingEntry
from pipeline.data.catalogue.review_schema import Draft as DraftRow
from pipeline.data.catalogue.schema import FindingRow, now
from pipeline.review.permissions import Actor
from pipeline.review.refusals import Overtaken, check_id, unknown
from pipeline.review.region import draws
from pipeline.review.text import clean_text

LONGEST = 200_000  # characters of one field: ten times what can be signed by default
WINDOW = 64  # characters of a window's name


@dataclass(frozen=True, slots=True)
class Typed:
    """The fields of a form as they were typed; `region` is the drawn region as the page sends it."""

    outcome: str = ""
    code: str = ""
    text: str = ""
    comment: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """A stored draft: its version, the window that typed it, and when it was last saved."""

    typed: Typed
    saved_at: datetime
    version: int
    window: str


class Drafts:
    """Save and read drafts, each visible to its own reader only."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def save(
        self,
        finding_id: int,
        typed: Typed,
        token: str,
        actor: Actor,
        window: str = "",
        drawn: Mapping[str, Any] | None = None,
        after: int | None = None,
    ) -> int:
        """Save a window's draft in place of its earlier one; return its version, 0 if nothing is left to keep.

        An empty draft deletes the earlier one, and so does one that says what was signed: nothing is left to sign. One
        that bears the `token` of a form that was signed arrives late, and is ignored. `drawn` is the region of `typed`
        with its image, see `draws`; None if nothing was drawn, or nobody can tell on which image. `after` is the
        version that the window knew when it sent this; None replaces any.

        Raises:
            UnknownFinding: the finding is not on the list.
            BadText: a text cannot be stored.
            NotAllowed: the actor may not decide.
            Overtaken: the window has saved a version later than `after`, as when a page is left during a save.
        """
        actor.require("decide")
        values = _values(typed)
        with self._catalogue.session() as session:
            if session.get(ReadingEntry, check_id(finding_id)) is None:
                raise unknown(finding_id)
            if token and session.scalar(select(Decision.id).where(Decision.token == token)) is not None:
                return 0
            own = and_(_of(finding_id, actor.name), DraftRow.window_name == window)
            latest = session.scalar(select(DraftRow.version).where(own))
            if after is not None and latest is not None and latest > after:
                raise Overtaken(latest)
            session.execute(delete(DraftRow).where(own))
            if not any(values.values()) or _is_signed(session, finding_id, values, drawn, actor.name):
                return 0
            row = DraftRow(finding_id=finding_id, reader=actor.name, window_name=window, saved_at=now(), **values)
            session.add(row)
            session.flush()
            return row.version

    def list_kept(self, finding_id: int, actor: Actor) -> list[Kept]:
        """Return this reader's drafts of a finding, the latest first."""
        query = select(DraftRow).where(_of(check_id(finding_id), actor.name)).order_by(DraftRow.version.desc())
        with self._catalogue.reading() as session:
            rows = list(session.scalars(query))
        return [_kept(row) for row in rows]

    def discard(self, finding_id: int, version: int, actor: Actor) -> bool:
        """Delete one version of this reader's drafts; return False if it is gone or was changed."""
        with self._catalogue.session() as session:
            mine = select(DraftRow).where(_of(check_id(finding_id), actor.name), DraftRow.version == version)
            row = session.scalar(mine)
            if row is not None:
                session.delete(row)
            return row is not None

    def list_unsigned(self, actor: Actor) -> list[tuple[int, str]]:
        """Return the finding and the study of each scan with a draft of this reader, the latest first."""
        query = (
            select(DraftRow.finding_id, FindingRow.study_id)
            .join(FindingRow, FindingRow.id == DraftRow.finding_id)
            .where(DraftRow.reader == actor.name)
            .order_by(DraftRow.version.desc())
        )
        with self._catalogue.reading() as session:
            return list(dict.fromkeys((row[0], row[1]) for row in session.execute(query)))


def drop_signed(session: Session, finding_id: int, reader: str, typed: Typed, windows: Collection[str]) -> None:
    """Delete the drafts of the window that signed, under each of its names, and those that say the same; what else was
    typed is kept.
    """
    mine = or_(DraftRow.window_name.in_(windows), _says(_values(typed)))
    session.execute(delete(DraftRow).where(_of(finding_id, reader), mine))


def _kept(row: DraftRow) -> Kept:
    fields = {name: getattr(row, name) for name in asdict(Typed())}
    return Kept(Typed(**fields), row.saved_at, row.version, row.window_name)


def _is_signed(
    session: Session, finding_id: int, values: dict[str, Any], drawn: Mapping[str, Any] | None, reader: str
) -> bool:
    """Return whether a reader's draft says what they decided last, in words and drawn region."""
    last = read_last_decision(session, finding_id)
    if last is None or last.reader != reader or last.withdraws is not None:
        return False
    says = {"outcome": last.outcome, "code": last.code, "text": last.free_text, "comment": last.comment}
    if any(values[name] != value for name, value in says.items()):
        return False
    if not values["region"] or last.region is None:
        return not values["region"] and last.region is None
    return drawn is not None and draws(drawn, last.region, last.region_instance_id)


def _values(typed: Typed) -> dict[str, Any]:
    return {
        "outcome": typed.outcome if typed.outcome in OUTCOMES else "",
        "code": clean_text(typed.code, "code", LONGEST)[:64],
        **{name: clean_text(getattr(typed, name), name, LONGEST) for name in ("text", "comment", "region")},
    }


def _of(finding_id: int, reader: str) -> ColumnElement[bool]:
    return and_(DraftRow.finding_id == finding_id, DraftRow.reader == reader)


def _says(values: dict[str, Any]) -> ColumnElement[bool]:
    return and_(*(getattr(DraftRow, name) == value for name, value in values.items()))
