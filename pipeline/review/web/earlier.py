"""Earlier studies of the patient over HTTP, and the way to the site's own viewer: what a reader opens beside a scan."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path
from starlette.responses import JSONResponse, RedirectResponse, Response

from pipeline.review.permissions import may_identify
from pipeline.review.refusals import NotAllowed
from pipeline.review.scan_data import frames_of_reference, stack_data
from pipeline.review.stacks import CHANGED, Stacks
from pipeline.review.web.access import FindingId, Reader, RoomHere, Viewer
from pipeline.review.web.app_state import Room
from pipeline.review.web.slice_pixels import Layout, send_pixels

Number = Annotated[int, Path(ge=0, lt=1000)]  # of an earlier study, 0 for the latest

router = APIRouter(prefix="/scan/{finding_id}")


def earlier_words(room: Room, study_id: str, viewer: Reader) -> list[dict[str, str]]:
    """Return how the earlier studies of a scan are named: how much earlier, and the date for those who may see it."""
    identify = may_identify(viewer.actor, room.review.policy)
    return [
        {"words": one.words, "date": f"{one.date:%d %b %Y}" if one.date and identify else ""}
        for one in room.review.earlier.read(study_id)
    ]


@router.get("/earlier/{number}")
def earlier(finding_id: FindingId, number: Number, room: RoomHere, viewer: Viewer) -> JSONResponse:
    """Send the stacks of an earlier study; opening it is recorded first."""
    stacks = _opened(room, finding_id, number, viewer)
    base = f"/scan/{finding_id}/earlier/{number}"
    frames = frames_of_reference(stacks)
    return JSONResponse(
        {"base": base, "layout": stacks.layout, "stacks": [stack_data(one, frames) for one in stacks.stacks]}
    )


@router.get("/earlier/{number}/pixels/{stack}/{index}")
def earlier_pixels(
    finding_id: FindingId,
    number: Number,
    stack: int,
    index: int,
    room: RoomHere,
    viewer: Viewer,
    layout: Layout = "",
) -> Response:
    """Send one image of an earlier study."""
    stacks = _opened(room, finding_id, number, viewer)
    if layout not in ("", stacks.layout):
        raise HTTPException(409, CHANGED)
    ref = stacks.ref(stack, index)
    if ref is None:
        raise HTTPException(404, "The earlier study has no such image.")
    return send_pixels(room, ref, "")


@router.get("/viewer")
def site_viewer(finding_id: FindingId, room: RoomHere, viewer: Viewer) -> RedirectResponse:
    """Redirect to the study in the site's own viewer, for those who may see real identifiers."""
    row = room.review.worklist.read_row(finding_id)
    try:
        return RedirectResponse(room.review.viewer.find_address(row, viewer.actor), 303)
    except NotAllowed as error:
        raise HTTPException(403, str(error)) from None


def _opened(room: Room, finding_id: int, number: int, viewer: Reader) -> Stacks:
    """Return the stacks of an earlier study, once it is on record that the viewer looks at it."""
    studies = room.review.earlier.read(room.read_finding(finding_id).study_id)
    if number >= len(studies):
        raise HTTPException(404, "The patient of this scan has no such earlier study. Load the page again.")
    study = studies[number]
    if room.note_look(viewer.name, finding_id, f"earlier-{number}"):
        detail: dict[str, Any] = {"number": number, "days_before": study.days}
        room.review.audit.record("earlier-study", viewer.actor, f"finding:{finding_id}", detail)
    return room.stacks.read(study.study_id)
