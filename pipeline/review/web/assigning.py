"""Scans that are kept for a reader before anybody opens them."""

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
    """Keep a scan for the reader `to`, oneself where none is named; 409 with the reason where that cannot be."""
    to = str(form.get("to", ""))[:64] or reader.name
    try:
        claim = await run_in_threadpool(room.review.locks.assign, finding_id, to, reader.actor)
    except ReviewError as error:
        raise HTTPException(409, str(error)) from None
    return PlainTextResponse(f"Kept for {claim.holder} until {claim.until:%H:%M} UTC.")


@router.post("/unassign")
async def unassign(finding_id: FindingId, room: RoomHere, reader: Decider, form: CheckedForm) -> Response:
    """Keep a scan for nobody any more; 409 where it is not this reader's to give back."""
    if not await run_in_threadpool(room.review.locks.unassign, finding_id, reader.actor):
        raise HTTPException(409, "This scan is not kept for you.")
    return PlainTextResponse("Anybody may read it now.")


def readers(room: Room, reader: Reader) -> list[str]:
    """Return whom a reader may keep scans for, themselves first."""
    others = room.review.users.list() if reader.may("assign") else ()
    return [reader.name, *(user.name for user in others if user.may("decide") and user.name != reader.name)]
