"""Small pictures of scans: one for each row of the list."""

from __future__ import annotations

import io

import numpy as np
from fastapi import APIRouter, HTTPException
from PIL import Image
from starlette.responses import Response

from pipeline.data.images.load_slice import frame_attributes
from pipeline.dicom.decode.physical import for_display, to_physical
from pipeline.review.display_frames import block_means
from pipeline.review.scan_data import scan_data
from pipeline.review.web.access import FindingId, Reader, RoomHere, Viewer
from pipeline.review.web.app_state import Room
from pipeline.types import SliceRef

EDGE = 96  # pixels

router = APIRouter(prefix="/scan/{finding_id}")


@router.get("/thumbnail.png")
def thumbnail(finding_id: FindingId, room: RoomHere, viewer: Viewer) -> Response:
    """Send the image with which the scan's page opens: the most unusual one, before the first look has ended the middle
    one.
    """
    finding = room.read_finding(finding_id)
    ref = _first(room, finding_id, viewer)
    if ref is None:
        raise HTTPException(404, "The images of this scan are no longer in the catalogue.")
    if room.note_look(viewer.name, finding_id, "thumbnail"):
        room.review.audit.record("thumbnail", viewer.actor, f"finding:{finding_id}")
    key = (ref.content_id, finding.id)
    with room.lock:
        picture = room.thumbnails.get(key)
    if picture is None:
        picture = small_picture(room, ref, EDGE)
        with room.lock:
            room.thumbnails[key] = picture
    return Response(picture, media_type="image/png")


def _first(room: Room, finding_id: int, viewer: Reader) -> SliceRef | None:
    finding = room.read_finding(finding_id)
    stacks = room.stacks.read(finding.study_id)
    heatmap = room.review.first_looks.has_ended(finding_id, viewer.actor)
    stack, index = scan_data(finding, stacks, revealed=False, heatmap=heatmap)["start"]
    return stacks.ref(stack, index)


def small_picture(room: Room, ref: SliceRef, edge: int) -> bytes:
    """Return an image as PNG, 8 bits, through its own window, reduced to about `edge` pixels."""
    attributes = frame_attributes(ref.attributes, ref.frame)
    picture = for_display(to_physical(room.frames.read_stored(ref)[None], attributes), attributes)[0]
    return _png(picture, edge)


def _png(picture: np.ndarray, edge: int) -> bytes:
    factor = max(1, max(picture.shape) // edge)
    buffer = io.BytesIO()
    Image.fromarray(block_means(picture, factor) if factor > 1 else picture).save(buffer, format="PNG")
    return buffer.getvalue()
