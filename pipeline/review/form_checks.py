"""Checks of a decision's form that tell a stale or damaged one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from pipeline.data.catalogue.review_schema import Decision
from pipeline.data.catalogue.schema import FindingRow
from pipeline.review.refusals import BadInput, StaleDecision
from pipeline.review.second_opinions import find_withheld

_SIGNED = ("outcome", "code", "free_text", "comment", "region", "region_instance_id")
_TOKEN = re.compile(r"[\w-]{8,64}", re.ASCII)


def check_token(token: str) -> None:
    """Raise BadInput unless a form's token is 8 to 64 letters, digits, - or _."""
    if not _TOKEN.fullmatch(token):
        raise BadInput(
            "The form's token is not valid: it must be 8 to 64 letters, digits, - or _. Load the page again."
        )


def check_seen(session: Session, finding: FindingRow, last: Decision | None, seen: int, viewer: str) -> None:
    """Raise StaleDecision unless `last` is the decision that the form was rendered with.

    A viewer is not told who decided where the page withholds it from them.
    """
    if seen == (last.id if last else 0):
        return
    who = "The last decision has changed"
    if last is not None and finding.id not in find_withheld(session, viewer, finding.study_id):
        who = f"{last.reader} decided at {last.decided_at:%H:%M} UTC"
    raise StaleDecision(f"{who}, after this form was loaded. Look at the decisions so far, then decide again.")


def check_repeated(row: Decision, finding_id: int, reader: str, values: Mapping[str, Any]) -> None:
    """Raise BadInput unless a form that was sent again says what the decision `row` of its token says.

    Other words would be lost if they were taken for a double click: a page that the browser brought back may send them.
    """
    if (row.finding_id, row.reader) != (finding_id, reader):
        raise BadInput("The form's token was used for another decision. Load the page again.")
    if any(getattr(row, name) != values.get(name, getattr(row, name)) for name in _SIGNED):
        raise BadInput(
            f"This form was signed at {row.decided_at:%H:%M} UTC, with other words or another region than now. Load "
            "the page again, and sign again if you want to change the decision."
        )
