"""Readers' decisions as labels, and which of them must never be used for training or calibration.

A dismissed flag is by construction a false alarm of the model that raised it, and nobody looked at the normal scans
that were not flagged. Normals taken from dismissed flags alone are therefore the odd ones, and a threshold calibrated
on them would be wrong. So their label rows have a source of their own, `DISMISSED_FLAG`. A slice whose normal label
rests only on such rows is not eligible for any set, and such a row does not give a patient a set. Normal scans from the
blinded sample are labelled like those from a report.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from sqlalchemy import exists, insert, select
from sqlalchemy.orm import Session, aliased

from pipeline.data.catalogue.review_schema import Decision, ReadingFrame
from pipeline.data.catalogue.schema import FindingRow, LabelRow, now
from pipeline.types import Label

REVIEW = "review"
DISMISSED_FLAG = "review-dismissed-flag"
CONFIRMED, DISMISSED = "confirmed", "dismissed"


def label_study(session: Session, study_id: str, reader: str) -> None:
    """Append the label that follows from the outcomes in effect on a study's findings, if it is new.

    One confirmed finding makes it abnormal; otherwise a dismissed one normal; otherwise the earlier label returns.
    """
    rows = select(LabelRow).where(LabelRow.level == "study", LabelRow.subject == study_id).order_by(LabelRow.id)
    before = list(session.scalars(rows))
    said = _said(session, study_id)
    if before and before[-1].source in (REVIEW, DISMISSED_FLAG):
        if (before[-1].label, before[-1].source) == said:
            return
        _append(session, study_id, *_without_review(before), reader=reader)
    if said is not None:
        _append(session, study_id, *said, reader=reader)


def _said(session: Session, study_id: str) -> tuple[Label, str] | None:
    outcomes = list(_outcomes(session, study_id))
    if any(outcome == CONFIRMED for outcome, _ in outcomes):
        return "abnormal", REVIEW
    dismissed = [by_lot for outcome, by_lot in outcomes if outcome == DISMISSED]
    return ("normal", REVIEW if any(dismissed) else DISMISSED_FLAG) if dismissed else None


def _outcomes(session: Session, study_id: str) -> Iterable[tuple[str, bool]]:
    """Yield the outcome in effect of each finding, and whether it was only sampled, never flagged."""
    later = aliased(Decision)
    newer = exists().where(later.finding_id == Decision.finding_id, later.number > Decision.number)
    query = (
        select(Decision.outcome, FindingRow.flagged, ReadingFrame.flagged)
        .join(FindingRow, FindingRow.id == Decision.finding_id)
        .outerjoin(ReadingFrame, ReadingFrame.finding_id == Decision.finding_id)
        .where(FindingRow.study_id == study_id, ~newer)
    )
    for outcome, flagged, framed in session.execute(query):
        yield outcome, framed is False and not flagged


def _without_review(rows: list[LabelRow]) -> tuple[Label, str]:
    """Return the label before readers decided, as (label, source)."""
    others = [row for row in rows if row.source not in (REVIEW, DISMISSED_FLAG)]
    return (cast(Label, others[-1].label), others[-1].source) if others else ("unknown", REVIEW)


def _append(session: Session, study_id: str, label: Label, source: str, reader: str) -> None:
    row = {"level": "study", "subject": study_id, "label": label, "source": source, "reader": reader}
    session.execute(insert(LabelRow), {**row, "labelled_on": now().date().isoformat()})
