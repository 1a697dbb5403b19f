"""Independence of second opinions: who may give one does not see how the study was decided in another row."""

from __future__ import annotations

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from pipeline.data.catalogue.database import chunks
from pipeline.data.catalogue.effective_decision import is_last
from pipeline.data.catalogue.review_schema import CLOSED, Decision
from pipeline.data.catalogue.schema import FindingRow
from pipeline.review.locks import SECOND_OPINION


def find_withheld(session: Session, viewer: str, study_id: str = "") -> frozenset[int]:
    """Return the decided findings whose outcome is kept from a viewer, of one study or of all.

    A row of their study awaits a second opinion, and their last decision is somebody else's.
    """
    last = and_(Decision.finding_id == FindingRow.id, is_last())
    pending = select(FindingRow.study_id).join(Decision, last).where(Decision.outcome == SECOND_OPINION).distinct()
    if study_id:
        pending = pending.where(FindingRow.study_id == study_id)
    decided = select(FindingRow.id).join(Decision, last).where(Decision.outcome.in_(CLOSED), Decision.reader != viewer)
    return frozenset(
        finding_id
        for part in chunks(set(session.scalars(pending)))
        for finding_id in session.scalars(decided.where(FindingRow.study_id.in_(part)))
    )
