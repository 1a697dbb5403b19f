"""Drafts of decisions: all that a reader typed is kept until it is signed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.effective_decision import OUTCOMES
from pipeline.data.catalogue.review_schema import Decision, ReadingEntry
from pipeline.data.catalogue.review_schema import Draft as DraftRow
from pipeline.data.catalogue.schema import FindingRow, now
from pipeline.review.permissions import Actor
from pipeline.review.refusals import check_id, unknown
from pipeline.review.text import clean_text

LONGEST = 200_000  # characters of one field: more than any form may hold


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
    """A stored draft and when it was last saved."""

    typed: Typed
    saved_at: datetime


class Drafts:
    """Save and read drafts, each visible to its own reader only."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def save(self, finding_id: int, typed: Typed, token: str, actor: Actor) -> None:
        """Save a draft in place of the reader's earlier one; an empty one deletes it.

        A draft that arrives after its form was signed (`token`) is ignored: it was on its way.

        Raises:
            UnknownFinding: the finding is not on the list.
            BadText: a text cannot be stored.
            NotAllowed: the actor may not decide.
        """
        actor.require("decide")
        values = {
            "outcome": typed.outcome if typed.outcome in OUTCOMES else "",
            "code": clean_text(typed.code, "code", LONGEST)[:64],
            **{name: clean_text(getattr(typed, name), name, LONGEST) for name in ("text", "comment", "region")},
        }
        with self._catalogue.session() as session:
            if session.get(ReadingEntry, check_id(finding_id)) is None:
                raise unknown(finding_id)
            if token and session.scalar(select(Decision.id).where(Decision.token == token)) is not None:
                return
            drop_draft(session, finding_id, actor.name)
            if any(values.values()):
                session.add(DraftRow(finding_id=finding_id, reader=actor.name, saved_at=now(), **values))

    def read(self, finding_id: int, actor: Actor) -> Kept | None:
        """Return this reader's draft of a finding, or None."""
        with self._catalogue.reading() as session:
            row = session.get(DraftRow, (check_id(finding_id), actor.name))
        if row is None:
            return None
        return Kept(Typed(**{name: getattr(row, name) for name in asdict(Typed())}), row.saved_at)

    def list_unsigned(self, actor: Actor) -> list[tuple[int, str]]:
        """Return the finding and the study of each of this reader's drafts, the latest first."""
        query = (
            select(DraftRow.finding_id, FindingRow.study_id)
            .join(FindingRow, FindingRow.id == DraftRow.finding_id)
            .where(DraftRow.reader == actor.name)
            .order_by(DraftRow.saved_at.desc())
        )
        with self._catalogue.reading() as session:
            return [(row[0], row[1]) for row in session.execute(query)]


def drop_draft(session: Session, finding_id: int, reader: str) -> None:
    """Delete a reader's draft of a finding."""
    session.execute(delete(DraftRow).where(DraftRow.finding_id == finding_id, DraftRow.reader == reader))
