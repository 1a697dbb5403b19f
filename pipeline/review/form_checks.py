"""Checks of a decision's form that tell a stale or damaged one."""

from __future__ import annotations

import re

from pipeline.data.catalogue.review_schema import Decision
from pipeline.review.refusals import BadInput, StaleDecision

_TOKEN = re.compile(r"[\w-]{8,64}", re.ASCII)


def check_token(token: str) -> None:
    """Raise BadInput unless a form's token is 8 to 64 letters, digits, - or _."""
    if not _TOKEN.fullmatch(token):
        raise BadInput(
            "The form's token is not valid: it must be 8 to 64 letters, digits, - or _. Load the page again."
        )


def check_seen(last: Decision | None, seen: int) -> None:
    """Raise StaleDecision unless `last` is the decision that the form was rendered with."""
    if seen != (last.id if last else 0):
        who = f"{last.reader} decided at {last.decided_at:%H:%M} UTC" if last else "The last decision has changed"
        raise StaleDecision(f"{who}, after this form was loaded. Nothing was saved. Load the page again, then decide.")
