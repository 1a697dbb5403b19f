"""First looks: a study is seen without heatmap until its reader asks for it, and what they thought until then is kept.

Decisions made before and after the heatmap are the data that says whether heatmaps help, so the server determines which
it was: it sends no heatmap before the view is on record. A study that two models have listed has one first look, since
whoever saw what one model found has an idea of what the other did.
"""

from __future__ import annotations

from sqlalchemy import insert
from sqlalchemy.orm import Session

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.review_schema import OUTCOMES, HeatmapView, ReadingEntry
from pipeline.data.catalogue.schema import FindingRow, now
from pipeline.data.catalogue.study_reading import StudyReading, read_study
from pipeline.review.audit import Audit
from pipeline.review.permissions import Actor
from pipeline.review.refusals import BadInput, check_id, unknown


class FirstLooks:
    """Record and check who has seen the heatmap of a scan."""

    def __init__(self, catalogue: Catalogue, audit: Audit) -> None:
        self._catalogue, self._audit = catalogue, audit

    def end(self, finding_id: int, first_look: str, actor: Actor) -> None:
        """Record that the actor is shown the heatmap from now on, once; `first_look` is the outcome chosen until then.

        Raises:
            UnknownFinding: the finding is not on the list.
            BadInput: `first_look` is not an outcome or "".
            NotAllowed: the actor may not view scans.
        """
        actor.require("view")
        if first_look and first_look not in OUTCOMES:
            raise BadInput(f"{first_look[:20]!r} is not an outcome; use one of {', '.join(OUTCOMES)}, or none.")
        with self._catalogue.session() as session:
            if session.get(ReadingEntry, check_id(finding_id)) is None:
                raise unknown(finding_id)
            if actor.name in _read_study_of(session, finding_id).views:
                return
            row = {"finding_id": finding_id, "reader": actor.name, "first_look": first_look, "seen_at": now()}
            session.execute(insert(HeatmapView), row)
            detail = {"first_look": first_look} if first_look else {}
            self._audit.add(session, "heatmap", actor, f"finding:{finding_id}", detail)

    def has_ended(self, finding_id: int, actor: Actor) -> bool:
        """Return whether the actor may be sent heatmaps of the study: they asked for one, or every row is decided."""
        with self._catalogue.reading() as session:
            study = _read_study_of(session, check_id(finding_id))
        return actor.name in study.views or study.is_settled()


def _read_study_of(session: Session, finding_id: int) -> StudyReading:
    finding = session.get(FindingRow, finding_id)
    return read_study(session, finding.study_id) if finding else StudyReading((), (), {})
