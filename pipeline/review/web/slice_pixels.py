"""Pixels over HTTP: slices, heatmaps and reconstructions as rows of little-endian integers, described in a header."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, HTTPException, Query, Response
from starlette.concurrency import run_in_threadpool

from pipeline.data.catalogue.schema import FindingRow
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.voi import is_inverted
from pipeline.errors import NightreadError
from pipeline.review.display_frames import Box, Frame, default_window
from pipeline.review.scan_data import spacing_mm
from pipeline.review.slice_maps import OpenModel, SliceMaps
from pipeline.review.stacks import CHANGED, Stack
from pipeline.review.web.access import FindingId, Reader, RoomHere, Viewer
from pipeline.review.web.app_state import Room
from pipeline.types import SliceRef

PATIENCE_S = 8.0  # that a request waits for a map before it is told to ask again
BOX = re.compile(r"\d{1,7}(,\d{1,7}){3}")
PROJECTION_WINDOW = (0.5, 1.0)  # the physical values of a projection are [0, 1]: its file's window made them

# What a page was laid out as; "" does not ask. A study that grew since would give another image for the same number.
Layout = Annotated[str, Query(max_length=16)]

router = APIRouter(prefix="/scan/{finding_id}")


@router.get("/pixels/{stack}/{index}")
def pixels(
    finding_id: FindingId,
    stack: int,
    index: int,
    room: RoomHere,
    viewer: Viewer,
    box: str = "",
    layout: Layout = "",
) -> Response:
    """Send one image: whole, reduced where it is very large, or its part `box` (top,left,rows,columns) in full."""
    finding = _looked_at(room, finding_id, viewer)
    _, ref = _slice(room, finding, stack, index, layout)
    with saying():
        frame = room.frames.read(ref, _box(box))
    return _answer(frame.values, {**frame.about(), "spacing": spacing_mm(ref)})


@router.get("/heat/{stack}/{index}")
async def heat(
    finding_id: FindingId, stack: int, index: int, room: RoomHere, viewer: Viewer, layout: Layout = ""
) -> Response:
    """Send the heatmap of an image, with the threshold of its outline; 503 while it is computed."""
    maps, model, _ = await _maps(finding_id, stack, index, room, viewer, layout)
    row = await run_in_threadpool(room.review.worklist.row, finding_id)
    # Whether anything passes the threshold would tell a sampled scan from a flagged one, and so would the height of a
    # map, since the model's card names the threshold: until it is decided, every image has its own scale, up to 1.
    outline = model.outline if row.revealed else None
    unit = 1.0 if row.revealed or maps.top <= 0 else maps.top
    about = {
        "slope": maps.heat_step / unit,
        "intercept": maps.heat_first / unit,
        "top": maps.top / unit,
        "reduced": maps.reduced,
        "threshold": None if outline is None else outline.threshold,
        "alpha": None if outline is None else outline.alpha,
    }
    return _answer(maps.heat, about)


@router.get("/reconstruction/{stack}/{index}")
async def reconstruction(
    finding_id: FindingId, stack: int, index: int, room: RoomHere, viewer: Viewer, layout: Layout = ""
) -> Response:
    """Send what the model makes of an image, in the original's units; 404 where the method has no reconstruction."""
    maps, _, ref = await _maps(finding_id, stack, index, room, viewer, layout)
    if maps.image is None:
        raise HTTPException(404, "This method compares without a reconstruction: there is none to show.")
    window = PROJECTION_WINDOW
    if maps.linked:
        window = await run_in_threadpool(lambda: default_window(room.frames.stored(ref), ref))
    frame = Frame(maps.image, maps.image_step, maps.image_first, window, False, maps.reduced)
    shown = replace(frame, box=(0, 0, *(edge * maps.reduced for edge in maps.image.shape)), invert=_inverted(maps, ref))
    return _answer(maps.image, {**shown.about(), "linked": maps.linked, "spacing": spacing_mm(ref)})


def _inverted(maps: SliceMaps, ref: SliceRef) -> bool:
    """A projection's physical values are bright already."""
    return maps.linked and is_inverted(InstanceAttributes.from_json(ref.attributes))


async def _maps(
    finding_id: int, stack: int, index: int, room: Room, viewer: Reader, layout: str
) -> tuple[SliceMaps, OpenModel, SliceRef]:
    finding = await run_in_threadpool(_looked_at, room, finding_id, viewer)
    found, ref = await run_in_threadpool(_slice, room, finding, stack, index, layout)
    with saying():
        asked = asyncio.wrap_future(room.maps.ask(finding, found, index))
        done, _ = await asyncio.wait([asked], timeout=PATIENCE_S)
        if not done:
            raise HTTPException(503, "The heatmap is being computed.", {"Retry-After": "1"})
        maps = asked.result()
        model = await run_in_threadpool(room.maps.model, finding)
    if maps is None:
        raise HTTPException(404, "This model gives one number a scan, and no heatmap.")
    return maps, model, ref


def _looked_at(room: Room, finding_id: int, viewer: Reader) -> FindingRow:
    """Return the finding; pixels that are taken without the page of their scan are written down as a view of it."""
    finding = room.finding(finding_id)
    if room.looks.is_new(viewer.name, finding_id):
        room.review.audit.record("pixels", viewer.actor, f"finding:{finding_id}")
    return finding


def _slice(room: Room, finding: FindingRow, stack: int, index: int, layout: str) -> tuple[Stack, SliceRef]:
    stacks = room.stacks.of(finding.study_id)
    if layout not in ("", stacks.layout):
        raise HTTPException(409, CHANGED)
    ref = stacks.ref(stack, index)
    if ref is None:
        raise HTTPException(404, "The scan has no such image.")
    return stacks.stacks[stack], ref


def _box(text: str) -> Box | None:
    if not text:
        return None
    if not BOX.fullmatch(text):
        raise HTTPException(422, "A part is given as top,left,rows,columns.")
    top, left, rows, columns = map(int, text.split(","))
    return top, left, rows, columns


def _answer(values: np.ndarray, about: dict[str, Any]) -> Response:
    rows, columns = values.shape
    told = {"rows": rows, "columns": columns, "dtype": values.dtype.name, **about}
    data = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()
    return Response(data, media_type="application/octet-stream", headers={"X-Image": json.dumps(told)})


class saying:
    """Turns an error raised on purpose into an answer that says its sentence: pseudonyms only, by the errors' law."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Answer 409: the scan is there, and cannot be shown."""
        if isinstance(error, NightreadError):
            raise HTTPException(409, str(error)) from None
