"""First looks: a scan is seen without heatmap until its reader asks for it, and what they thought until then is kept.

Decisions made before and after the heatmap are the data that says whether heatmaps help, so the server determines which
it was: it sends no heatmap before the view is on record.
"""

from __future__ import annotations

from sqlalchemy import insert

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.effective_decision import CLOSED, OUTCOMES, read_last_decision
from pipeline.data.catalogue.review_schema import HeatmapView, ReadingEntry
from pipeline.data.catalogue.schema import now
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
            if session.get(HeatmapView, (finding_id, actor.name)) is not None:
                return
            row = {"finding_id": finding_id, "reader": actor.name, "first_look": first_look, "seen_at": now()}
            session.execute(insert(HeatmapView), row)
            detail = {"first_look": first_look} if first_look else {}
            self._audit.add(session, "heatmap", actor, f"finding:{finding_id}", detail)

    def has_ended(self, finding_id: int, actor: Actor) -> bool:
        """Return whether the actor may be sent the heatmap: they asked for it, or the scan is decided."""
        with self._catalogue.reading() as session:
            if session.get(HeatmapView, (check_id(finding_id), actor.name)) is not None:
                return True
            last = read_last_decision(session, finding_id)
        return last is not None and last.outcome in CLOSED
