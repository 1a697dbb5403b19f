"""Everything behind a finding for whoever may ask, once nobody can read its study blind through them any more."""

from __future__ import annotations

from typing import Any

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import FindingRow
from pipeline.data.catalogue.study_reading import read_study
from pipeline.review.hidden_studies import find_hidden, list_hidden_runs
from pipeline.review.locks import SECOND_OPINION
from pipeline.review.permissions import Actor
from pipeline.review.refusals import NotAllowed
from pipeline.review.services import Review
from pipeline.stages.audit.audit_trail import read_audit_trail
from pipeline.stages.audit.find_finding import find_finding

STUDY_OPEN = "Its audit page opens once every row of the study is decided."
NIGHT_OPEN = "Its audit page opens once all scans of its run are decided that are still read blind."
REFUSALS = {
    STUDY_OPEN: (
        "This study is still being read: one of its rows on the list is read blind and not decided, or awaits a second "
        "opinion. Your role may decide, and this page would say what the list hides. Open it again once every row of "
        "the study is decided, or ask an auditor."
    ),
    NIGHT_OPEN: (
        "Other scans of this run are still read blind, and this page says how many it flagged and by which rule. Your "
        "role may decide. Open it again once the run's scans are decided, or ask an auditor."
    ),
}


def read_finding_trail(
    catalogue: Catalogue, settings: Settings, review: Review, name: str, actor: Actor
) -> dict[str, Any]:
    """Return the audit trail of a finding, see `read_audit_trail`; that somebody asked is recorded first.

    Args:
        catalogue: where the finding is.
        settings: the workspace.
        review: the reading list.
        name: of the finding, see `find_finding`.
        actor: who asks.

    Raises:
        CatalogueError: no finding has this name, or several do.
        NotAllowed: the actor may not ask, or may still decide on the study, or on another of its run, without knowing
            the result.
        UnknownFinding: the actor decides, and the finding is not on the list.
    """
    actor.require("trace")
    row = find_finding(catalogue, name)
    if actor.may("decide"):
        review.worklist.read_row(row.id, actor.name)
    if reason := find_closed_reason(catalogue, row.id, actor):
        raise NotAllowed(REFUSALS[reason])
    review.audit.record("trace", actor, f"finding:{row.id}")
    return read_audit_trail(catalogue, settings, row)


def find_closed_reason(catalogue: Catalogue, finding_id: int, actor: Actor) -> str:
    """Return why the audit page of a finding does not open for somebody yet, in one sentence; "" if it does."""
    if not actor.may("decide"):
        return ""
    with catalogue.reading() as session:
        row = session.get_one(FindingRow, finding_id)
        hidden = find_hidden(session, [row.study_id])
        outcomes = read_study(session, row.study_id).outcomes().values()
        open_runs = list_hidden_runs(session)
    if hidden or SECOND_OPINION in outcomes:
        return STUDY_OPEN
    return NIGHT_OPEN if row.run_id in open_runs else ""
