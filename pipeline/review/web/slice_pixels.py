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
from pipeline.detection.rarity_scale import position
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.voi import is_inverted
from pipeline.errors import NightreadError
from pipeline.review.display_frames import Box, Frame, default_window
from pipeline.review.heat_scale import FINE_STEPS, STEPS, colour_levels, describe_scale
from pipeline.review.scan_data import measured_in, spacing_mm
from pipeline.review.slice_maps import OpenModel, SliceMaps
from pipeline.review.stacks import CHANGED, Stack
from pipeline.review.web.access import FindingId, Reader, RoomHere, Viewer
from pipeline.review.web.app_state import Room
from pipeline.types import SliceRef

PATIENCE_S = 8.0  # a request waits this long for a map before it is answered with 202
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
    return send_pixels(room, ref, box)


@router.get("/heat/{stack}/{index}")
async def heat(
    finding_id: FindingId, stack: int, index: int, room: RoomHere, viewer: Viewer, layout: Layout = ""
) -> Response:
    """Send the colours of an image's heatmap on the model's scale; 202 while it is computed.

    Only what the colours show is sent: the values themselves would tell how high a map is above the threshold. The
    outline is added once the scan is decided.
    """
    maps, model, _ = await _maps(finding_id, stack, index, room, viewer, layout)
    row = await run_in_threadpool(room.review.worklist.read_row, finding_id)
    outline = model.outline if row.revealed and model.quantiles else None
    steps = FINE_STEPS if row.revealed else STEPS
    about = {
        "slope": 1 / steps,
        "intercept": 0.0,
        "reduced": maps.reduced,
        "threshold": None if outline is None else min(max(position(outline.alpha), 0.0), 1.0),
        "alpha": None if outline is None else outline.alpha,
        **describe_scale(model.quantiles),
    }
    return send_image(await run_in_threadpool(colour_levels, maps, model.quantiles, steps), about)


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
    return send_image(maps.image, {**image.about(), "linked": maps.linked, **_measures(ref)})


def send_pixels(room: Room, ref: SliceRef, box: str) -> Response:
    """Send the pixels of one image, whole or a part of it, with what the viewer needs to show and measure it."""
    with saying():
        frame = room.frames.read(ref, read_box(box))
    return send_image(frame.values, {**frame.about(), **_measures(ref)})


def _measures(ref: SliceRef) -> dict[str, Any]:
    return {"spacing": spacing_mm(ref), "measured": measured_in(ref)}


def _inverted(maps: SliceMaps, ref: SliceRef) -> bool:
    """Return whether low values are bright; a projection's physical values are inverted already."""
    return maps.linked and is_inverted(InstanceAttributes.from_json(ref.attributes))


async def _maps(
    finding_id: int, stack: int, index: int, room: Room, viewer: Reader, layout: str
) -> tuple[SliceMaps, OpenModel, SliceRef]:
    finding = await run_in_threadpool(_looked_at, room, finding_id, viewer)
    if not await run_in_threadpool(room.review.first_looks.has_ended, finding_id, viewer.actor):
        raise HTTPException(403, "What the model saw in this scan is hidden until you ask for it (h) or have decided.")
    layers, ref = await run_in_threadpool(_slice, room, finding, stack, index, layout)
    with saying():
        future = asyncio.wrap_future(room.maps.ask(finding, layers, index))
        done, _ = await asyncio.wait([future], timeout=PATIENCE_S)
        if not done:
            raise HTTPException(202, "The heatmap is being computed. Try again in a second.", {"Retry-After": "1"})
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


def read_box(text: str) -> Box | None:
    """Return the part of an image that an address names; HTTPException 422 if it is not one."""
    if not text:
        return None
    if not BOX.fullmatch(text):
        raise HTTPException(422, "A part must be given as top,left,rows,columns.")
    top, left, rows, columns = map(int, text.split(","))
    return top, left, rows, columns


def send_image(values: np.ndarray, about: dict[str, Any]) -> Response:
    """Send an image with its description in a header."""
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
