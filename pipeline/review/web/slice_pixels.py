"""Pixels over HTTP: slices, heatmaps and reconstructions as little-endian integers, described in a response header."""

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

PATIENCE_S = 8.0  # a request waits this long for a map before it is answered with 503
BOX = re.compile(r"\d{1,7}(,\d{1,7}){3}")
PROJECTION_WINDOW = (0.5, 1.0)  # a projection's physical values are [0, 1], since its file's window was applied

# The page's layout; "" skips the check. If the study has grown since, the same number could mean another image.
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
    """Send one image: whole, reduced where it is very large, or its part `box` (top,left,rows,columns) at full size."""
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
    row = await run_in_threadpool(room.review.worklist.read_row, finding_id)
    # Before the decision, the scale must not reveal whether the scan was flagged or sampled: neither whether a value
    # exceeds the threshold nor the height of the map (the model card gives the threshold). So each image is scaled to
    # 1.
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
    """Send the model's reconstruction of an image, in the original's units; 404 if the method has no reconstruction."""
    maps, _, ref = await _maps(finding_id, stack, index, room, viewer, layout)
    if maps.image is None:
        raise HTTPException(404, "This method works without a reconstruction, so there is nothing to show.")
    window = PROJECTION_WINDOW
    if maps.linked:
        window = await run_in_threadpool(lambda: default_window(room.frames.read_stored(ref), ref))
    frame = Frame(maps.image, maps.image_step, maps.image_first, window, False, maps.reduced)
    image = replace(frame, box=(0, 0, *(edge * maps.reduced for edge in maps.image.shape)), invert=_inverted(maps, ref))
    return _answer(maps.image, {**image.about(), "linked": maps.linked, "spacing": spacing_mm(ref)})


def _inverted(maps: SliceMaps, ref: SliceRef) -> bool:
    """Return whether low values are bright; a projection's physical values are inverted already."""
    return maps.linked and is_inverted(InstanceAttributes.from_json(ref.attributes))


async def _maps(
    finding_id: int, stack: int, index: int, room: Room, viewer: Reader, layout: str
) -> tuple[SliceMaps, OpenModel, SliceRef]:
    finding = await run_in_threadpool(_looked_at, room, finding_id, viewer)
    layers, ref = await run_in_threadpool(_slice, room, finding, stack, index, layout)
    with saying():
        future = asyncio.wrap_future(room.maps.ask(finding, layers, index))
        done, _ = await asyncio.wait([future], timeout=PATIENCE_S)
        if not done:
            raise HTTPException(503, "The heatmap is being computed. Try again in a second.", {"Retry-After": "1"})
        maps = future.result()
        model = await run_in_threadpool(room.maps.open_model, finding)
    if maps is None:
        raise HTTPException(404, "This model gives one number per scan and no heatmap.")
    return maps, model, ref


def _looked_at(room: Room, finding_id: int, viewer: Reader) -> FindingRow:
    """Return the finding; fetching pixels without opening the page of the scan is recorded as a view, too."""
    finding = room.read_finding(finding_id)
    if room.note_look(viewer.name, finding_id):
        room.review.audit.record("pixels", viewer.actor, f"finding:{finding_id}")
    return finding


def _slice(room: Room, finding: FindingRow, stack: int, index: int, layout: str) -> tuple[Stack, SliceRef]:
    stacks = room.stacks.read(finding.study_id)
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
        raise HTTPException(422, "A part must be given as top,left,rows,columns.")
    top, left, rows, columns = map(int, text.split(","))
    return top, left, rows, columns


def _answer(values: np.ndarray, about: dict[str, Any]) -> Response:
    rows, columns = values.shape
    header = {"rows": rows, "columns": columns, "dtype": values.dtype.name, **about}
    data = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()
    return Response(data, media_type="application/octet-stream", headers={"X-Image": json.dumps(header)})


class saying:
    """Context that turns our own errors into answers with their message, which may hold pseudonyms only."""

    def __enter__(self) -> None:
        """Do nothing on entry."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Answer 409: the scan exists, but cannot be shown."""
        if isinstance(error, NightreadError):
            raise HTTPException(409, str(error)) from None
