"""Independence of second opinions: who may give one does not see how the study was decided in another row."""

from __future__ import annotations

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session, aliased

from pipeline.data.catalogue.database import chunks
from pipeline.data.catalogue.effective_decision import is_last
from pipeline.data.catalogue.review_schema import CLOSED, Decision
from pipeline.data.catalogue.schema import FindingRow
from pipeline.review.locks import SECOND_OPINION
from pipeline.review.refusals import NotAllowed


def find_withheld(session: Session, viewer: str, study_id: str = "") -> frozenset[int]:
    """Return the decided findings whose outcome is kept from a viewer, of one study or of all.

    A row of their study awaits a second opinion, and their last decision is somebody else's; who withdrew one did not
    say the outcome that is valid since.
    """
    # In two steps: in one, SQLite pairs every pending row with every decided one before it looks at their studies.
    pending, other = aliased(FindingRow), aliased(FindingRow)
    beside = (
        select(other.id)
        .select_from(Decision)
        .join(pending, pending.id == Decision.finding_id)
        .join(other, and_(other.study_id == pending.study_id, other.id != pending.id))
        .where(Decision.outcome == SECOND_OPINION, is_last())
    )
    rows = set(session.scalars(beside.where(pending.study_id == study_id) if study_id else beside))
    others = or_(Decision.reader != viewer, Decision.withdraws.is_not(None))
    said_by_others = select(Decision.finding_id).where(Decision.outcome.in_(CLOSED), others, is_last())
    return frozenset(
        finding_id
        for part in chunks(rows)
        for finding_id in session.scalars(said_by_others.where(Decision.finding_id.in_(part)))
    )


def require_told(session: Session, finding: FindingRow, viewer: str) -> None:
    """Refuse a viewer who may not see the outcome of a finding, since a withdrawal would show the one before it.

    Raises:
        NotAllowed: the study awaits a second opinion, which they may give.
    """
    if finding.id in find_withheld(session, viewer, finding.study_id):
        raise NotAllowed(
            "This study awaits a second opinion in another row, and other readers' decisions here are hidden from "
            "you, since you may give it. Withdraw this decision once the second opinion is given."
        )
