"""Forms of a browser that record a promotion: one that is sent twice writes once, and a stale one writes nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.data.catalogue.operations_schema import PromotionForm, PromotionRow
from pipeline.data.catalogue.promotion_records import PromotionRecord
from pipeline.errors import PromotionRefused

_TOKEN = re.compile(r"[\w-]{8,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class SeenState:
    """What a page showed when its form was rendered.

    Attributes:
        token: the form's own, 8 to 64 letters, digits, - or _.
        last: id of the route's last record; 0 without one.
        champion: version of the route's champion.
        basis: SHA-256 of what is approved: of the gate report, or for a rollback of the detector that it leads to.
    """

    token: str
    last: int
    champion: str
    basis: str

    def __post_init__(self) -> None:
        if not _TOKEN.fullmatch(self.token):
            raise PromotionRefused(
                "The form's token is not valid: it must be 8 to 64 letters, digits, - or _. Load the page again."
            )


def read_written(session: Session, seen: SeenState) -> PromotionRow | None:
    """Return the record that this form has written before, whatever it says."""
    form = session.get(PromotionForm, seen.token)
    return None if form is None else session.get_one(PromotionRow, form.promotion_id)


def find_written(session: Session, seen: SeenState, record: PromotionRecord) -> int | None:
    """Return the id of the record that this form has written before; None if it has not.

    Raises:
        PromotionRefused: the form has written something else than `record`.
    """
    row = read_written(session, seen)
    if row is None:
        return None
    same = (row.route, row.action, row.run, row.who, row.why)
    if same != (record.route, record.action, record.champion.run, record.who, record.why):
        raise PromotionRefused(
            f"This form was recorded at {row.at:%H:%M} UTC as {row.action} of {row.run}, with other words than now. "
            "Load the page again."
        )
    return row.id


def check_current(session: Session, seen: SeenState, route: str, champion: str) -> None:
    """Raise PromotionRefused if a record was added, or the champion moved, after the form was rendered."""
    query = select(PromotionRow).where(PromotionRow.route == route).order_by(PromotionRow.id.desc()).limit(1)
    last = session.scalars(query).first()
    if seen.last != (last.id if last else 0):
        said = f"{last.who} recorded {last.action} of {last.run} at {last.at:%H:%M} UTC" if last else "A record is gone"
        raise PromotionRefused(f"{said}, after this page was loaded. Load the page again, then decide.")
    if seen.champion != champion:
        raise PromotionRefused(
            f"The champion of {route} is version {champion} now, not {seen.champion}, as when this page was loaded. "
            "Load the page again, then decide."
        )


def add_form(session: Session, seen: SeenState, promotion_id: int) -> None:
    """Note which record a form has written, in the transaction that writes it."""
    session.add(PromotionForm(token=seen.token, promotion_id=promotion_id))
