"""Assignment of scans to readers before anybody opens them."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from pipeline.errors import ReviewError
from pipeline.review.web.access import CheckedForm, Decider, FindingId, Reader, RoomHere
from pipeline.review.web.app_state import Room

router = APIRouter(prefix="/scan/{finding_id}")


@router.post("/assign")
async def assign(finding_id: FindingId, room: RoomHere, reader: Decider, form: CheckedForm) -> Response:
    """Assign a scan to the reader `to`, by default to oneself; 409 with the reason if it is not possible."""
    to = str(form.get("to", ""))[:64] or reader.name
    try:
        claim = await run_in_threadpool(room.review.locks.assign, finding_id, to, reader.actor)
    except ReviewError as error:
        raise HTTPException(409, str(error)) from None
    return PlainTextResponse(f"Assigned to {claim.holder} until {claim.until:%H:%M} UTC.")


@router.post("/unassign")
async def unassign(finding_id: FindingId, room: RoomHere, reader: Decider, form: CheckedForm) -> Response:
    """End the assignment of a scan; 409 if this reader may not end it."""
    if not await run_in_threadpool(room.review.locks.unassign, finding_id, reader.actor):
        raise HTTPException(409, "This scan is not assigned to you. Load the page again.")
    return PlainTextResponse("This scan is not assigned any more: anybody may read it.")


def readers(room: Room, reader: Reader) -> list[str]:
    """Return the readers that may be assigned scans by this reader, themselves first."""
    others = room.review.users.list() if reader.may("assign") else ()
    return [reader.name, *(user.name for user in others if user.may("decide") and user.name != reader.name)]
