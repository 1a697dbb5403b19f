"""The strip of an electrocardiogram: leads on paper, and what the model did not expect as bars behind them."""

from __future__ import annotations

from concurrent.futures import TimeoutError as NotYet

import numpy as np
from fastapi import APIRouter, HTTPException
from starlette.responses import Response

from pipeline.data.catalogue.schema import FindingRow
from pipeline.data.images.load_slice import frame_attributes
from pipeline.dicom.decode.physical import to_physical
from pipeline.dicom.decode.waveform import Multiplex
from pipeline.review.ecg_strip import draw_strip
from pipeline.review.heat_scale import STEPS, colour_levels
from pipeline.review.stacks import Stack
from pipeline.review.web.access import FindingId, Reader, RoomHere, Viewer
from pipeline.review.web.app_state import Room

PATIENCE_S = 8.0  # a strip waits this long for its heatmap, and is then drawn without it

router = APIRouter(prefix="/scan/{finding_id}/strip")


@router.get("/{stack}/{index}.svg")
def strip(finding_id: FindingId, stack: int, index: int, room: RoomHere, viewer: Viewer) -> Response:
    """Send a recording as SVG; with bars once the first look has ended, as for heatmaps of images."""
    finding = room.read_finding(finding_id)
    if room.note_look(viewer.name, finding_id, "strip"):
        room.review.audit.record("strip", viewer.actor, f"finding:{finding_id}")
    stacks = room.stacks.read(finding.study_id)
    ref = stacks.ref(stack, index)
    if ref is None or not ref.attributes.get("waveforms"):
        raise HTTPException(404, "This image is not a signal, so it has no strip.")
    attributes = frame_attributes(ref.attributes, ref.frame)
    group = Multiplex.of(attributes.waveforms[0])
    signal = to_physical(room.frames.read_stored(ref)[None], attributes).pixels[0]
    heat = _heat(room, finding, stacks.stacks[stack], index, viewer)
    leads = slice(len(group.channels)), slice(group.samples)
    unit = group.channels[0].unit or "full scale"
    drawn = draw_strip(
        signal[leads], group.names, group.rate_hz, None if heat is None else heat[leads],
        f"25 mm/s, 10 mm/{unit}" + ("" if heat is None else "; bars: unusual for the model"),
    )  # fmt: skip
    return Response(drawn, media_type="image/svg+xml")


def _heat(room: Room, finding: FindingRow, stack: Stack, index: int, viewer: Reader) -> np.ndarray | None:
    """Return the heatmap's colours [channels, samples] from 0 to 1; None while hidden, missing or being computed."""
    if not room.review.first_looks.has_ended(finding.id, viewer.actor):
        return None
    try:
        maps = room.maps.ask(finding, stack, index).result(PATIENCE_S)
    except NotYet:
        return None
    if maps is None:
        return None
    levels = colour_levels(maps, room.maps.open_model(finding).quantiles) / STEPS
    return np.repeat(np.repeat(levels, maps.reduced, axis=0), maps.reduced, axis=1)
