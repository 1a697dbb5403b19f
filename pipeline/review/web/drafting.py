"""Drafts over HTTP: the page sends what a reader types a moment after they pause."""

from __future__ import annotations

from contextlib import suppress

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.responses import Response

from pipeline.errors import NightreadError
from pipeline.review.drafts import LONGEST, Kept, Typed
from pipeline.review.web.access import CheckedForm, Decider, FindingId, Reader, RoomHere
from pipeline.review.web.app_state import Room

router = APIRouter(prefix="/scan/{finding_id}")


@router.post("/draft")
async def draft(finding_id: FindingId, room: RoomHere, reader: Decider, form: CheckedForm) -> Response:
    """Save what is typed and not signed."""
    token = str(form.get("token", ""))[:64]
    await run_in_threadpool(room.review.drafts.save, finding_id, typed(form), token, reader.actor)
    return Response(status_code=204)


def typed(form: FormData) -> Typed:
    """Return the fields of a form as they were typed."""
    fields = ("outcome", "code", "text", "comment", "region")
    return Typed(**{name: str(form.get(name, ""))[: LONGEST + 1] for name in fields})


def keep_refused(room: Room, finding_id: int, form: FormData, reader: Reader) -> Typed:
    """Save a form that was not accepted as a draft, and return it for the page; a text that cannot be stored is
    returned all the same.
    """
    fields = typed(form)
    with suppress(NightreadError):  # the page shows it, and the answer says why it was refused
        room.review.drafts.save(finding_id, fields, "", reader.actor)
    return fields


def shown_draft(room: Room, finding_id: int, reader: Reader) -> Kept | None:
    """Return this reader's draft of a scan, None for users who may not decide."""
    return room.review.drafts.read(finding_id, reader.actor) if reader.may("decide") else None
