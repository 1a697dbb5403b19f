"""Most similar normal cases beside a scan: a part of its page that is loaded once it is ready, and its pictures.

They are those of the image with the highest score, so before the first look has ended they are held back like the
heatmap: a neighbour of the same level and view tells which image the model points at, and a low similarity that it is
unusual.
"""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import Response

from pipeline.errors import NightreadError
from pipeline.review.scan_data import worst_places
from pipeline.review.web.access import FindingId, RoomHere, Viewer
from pipeline.review.web.app_state import Room
from pipeline.review.web.thumbnails import small_picture
from pipeline.stages.generate.retrieval.similar_normals import NormalCase

PICTURE_EDGE = 320  # pixels
ASK_AGAIN_S = 2
KEY_DIGITS = (
    11  # of a content hash: identifies the pixels, but is too short to be taken for a pseudonym, which the log refuses
)

router = APIRouter(prefix="/scan/{finding_id}/similar")


@router.get("")
def similar(request: Request, finding_id: FindingId, room: RoomHere, viewer: Viewer) -> Response:
    """Show the neighbours, or tell the page to try again later; before the first look has ended, only say so."""
    room.read_finding(finding_id)
    neighbours, problem, seen = None, "", room.review.first_looks.has_ended(finding_id, viewer.actor)
    try:
        neighbours = _found(room, finding_id) if seen else None
    except NightreadError as error:
        problem = str(error)
    if neighbours:
        detail = {"shown": len(neighbours), "pixels": " ".join(one.pixel_key[:KEY_DIGITS] for one in neighbours)}
        room.review.audit.record("similar", viewer.actor, f"finding:{finding_id}", detail)
    context = {"neighbours": neighbours, "problem": problem, "id": finding_id, "again": ASK_AGAIN_S, "seen": seen}
    return room.templates.TemplateResponse(request, "similar.html", context)


@router.get("/{number}.png")
def picture(finding_id: FindingId, number: int, room: RoomHere, viewer: Viewer) -> Response:
    """Send the picture of one neighbour, 8 bits, through its own window."""
    room.read_finding(finding_id)
    if not room.review.first_looks.has_ended(finding_id, viewer.actor):
        raise HTTPException(403, "Similar cases are hidden until you ask for the heatmap (h) or have decided.")
    neighbours = _found(room, finding_id)
    if not neighbours or not 0 <= number < len(neighbours):
        raise HTTPException(404, "This scan has no similar case of this number. Load the page again.")
    ref = room.similar.find_slice(neighbours[number])
    if ref is None:
        raise HTTPException(404, "This case is no longer in the catalogue. Load the page again.")
    return Response(small_picture(room, ref, PICTURE_EDGE), media_type="image/png")


def _found(room: Room, finding_id: int) -> list[NormalCase] | None:
    """Return the neighbours of the most unusual image; None while they are being computed."""
    finding = room.read_finding(finding_id)
    stacks = room.stacks.read(finding.study_id)
    places = worst_places(finding, stacks)
    if not places:
        return []
    stack, index = places[0]
    future = room.similar.ask(finding, room.maps.open_model(finding).detector, stacks.stacks[stack].refs, index)
    return future.result() if future.done() else None
