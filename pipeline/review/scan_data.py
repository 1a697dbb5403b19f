"""Data of a scan that the viewer needs before it requests pixels: stacks, slices, and the first image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.data.catalogue.schema import FindingRow
from pipeline.data.images.load_slice import frame_attributes
from pipeline.review.decisions import Told
from pipeline.review.hanging import Hanging
from pipeline.review.stacks import Stack, Stacks
from pipeline.review.window_presets import presets, unit
from pipeline.types import SliceRef

WORST = 5  # number of most unusual images with their own button
NO_HANGING = Hanging()


def scan_data(
    finding: FindingRow,
    stacks: Stacks,
    revealed: bool,
    history: Sequence[Told] = (),
    heatmap: bool = True,
    hanging: Hanging = NO_HANGING,
    most_points: int = 0,
) -> dict[str, Any]:
    """Return the viewer's data as JSON; it has no pseudonyms; series and slices are numbered.

    Args:
        finding: the finding being read.
        stacks: of its study.
        revealed: whether the calibrated threshold may be shown.
        history: decisions that the reader may see; the regions of those that are valid are shown.
        heatmap: whether the reader may see what the model saw; else the most unusual images are not named either.
        hanging: layout and window with which the page opens.
        most_points: corners that a drawn region may have.
    """
    scored = scored_series(finding)
    worst = worst_places(finding, stacks) if heatmap else []
    first = next((n for n, stack in enumerate(stacks.stacks) if stack.series_id in scored), 0)
    middle = len(stacks.stacks[first].refs) // 2 if stacks.stacks else 0
    return {
        "base": f"/scan/{finding.id}",
        "start": worst[0] if worst else [first, middle],
        "worst": worst,
        "revealed": revealed,
        "heatmap": heatmap,
        "stacks": [
            {**stack_data(stack, frames_of_reference(stacks)), "scored": stack.series_id in scored}
            for stack in stacks.stacks
        ],
        "hanging": hanging.model_dump(mode="json"),
        "layout": stacks.layout,
        "most_points": most_points,
        "regions": [region for decision in history if (region := _region(decision, stacks)) is not None],
    }


def _region(decision: Told, stacks: Stacks) -> dict[str, Any] | None:
    """Return the image and points of a drawn region; None if nothing was drawn or its image is missing."""
    if decision.region is None or decision.withdrawn or decision.withdraws is not None:
        return None
    place = stacks.place(str(decision.region["instance_id"]), int(decision.region["frame"]))
    return None if place is None else {"stack": place[0], "index": place[1], "points": decision.region["points"]}


def scored_series(finding: FindingRow) -> set[str]:
    """Return the series that the detector has scored."""
    return {str(item.get("series_id", "")) for item in finding.evidence}


def worst_places(finding: FindingRow, stacks: Stacks) -> list[list[int]]:
    """Return (stack, slice) of the most unusual images, the most unusual first."""
    places = (stacks.place(str(item["instance_id"]), int(item["frame"])) for item in finding.evidence)
    visible = (list(place) for place in places if place is not None)
    return [place for place, _ in zip(visible, range(WORST), strict=False)]


def frames_of_reference(stacks: Stacks) -> dict[str, int]:
    """Return the frames of reference of a study, numbered; places in different ones cannot be compared."""
    names = dict.fromkeys(ref.frame_of_reference_id for stack in stacks.stacks for ref in stack.refs)
    return {name: number for number, name in enumerate(filter(None, names))}


def stack_data(stack: Stack, frames: Mapping[str, int]) -> dict[str, Any]:
    """Return what the viewer needs to know of a stack; places are in the patient, in mm (PS3.3 C.7.6.2.1.1).

    `frames` numbers the frames of reference of the study; a slice in none of them gets None.
    """
    first = stack.refs[0]
    return {
        "title": title(first),
        "rows": int(first.attributes.get("rows", 0)),
        "columns": int(first.attributes.get("columns", 0)),
        "spacing": spacing_mm(first),
        "sliceMm": first.slice_mm,
        "unit": unit(first),
        "presets": presets(first),
        "slices": [{**_slice(ref), "frame": frames.get(ref.frame_of_reference_id)} for ref in stack.refs],
    }


def title(ref: SliceRef) -> str:
    """Return a series in a few words from the allow-list: modality, body part, view, side, description, stack."""
    attributes = ref.attributes
    words = [str(attributes.get(name, "")) for name in ("modality", "body_part", "view", "laterality")]
    name = " ".join(word for word in [*words, *map(str, attributes.get("description", ()))] if word) or "series"
    return f"{name}, {ref.stack}" if ref.stack else name


def _slice(ref: SliceRef) -> dict[str, Any]:
    attributes = frame_attributes(ref.attributes, ref.frame)
    orientations = attributes.orientations or ((attributes.orientation,) if attributes.orientation else ())
    place = attributes.positions[0] if attributes.positions and not attributes.is_projection else None
    return {
        "directions": list(orientations[0]) if orientations else None,
        "position": None if place is None else [round(value, 3) for value in place],
    }


def spacing_mm(ref: SliceRef) -> list[float] | None:
    """Return the (row, column) pixel spacing of a slice, in the patient or else at the detector plane."""
    attributes = frame_attributes(ref.attributes, ref.frame)
    own = attributes.pixel_spacings_mm[:1] or (attributes.pixel_spacing_mm or attributes.imager_pixel_spacing_mm,)
    return None if own[0] is None else [float(value) for value in own[0]]


def measured_in(ref: SliceRef) -> str:
    """Return where `spacing_mm` is measured: `patient`, `detector` (before magnification), or `projection` (unknown).

    Source: PS3.3 10.7.1.3: a Pixel Spacing equal to the Imager Pixel Spacing has not been corrected for magnification.
    """
    attributes = frame_attributes(ref.attributes, ref.frame)
    if not attributes.is_projection:
        return "patient"
    own, detector = attributes.pixel_spacing_mm, attributes.imager_pixel_spacing_mm
    if detector is None:
        return "projection"
    return "detector" if own in (None, detector) else "patient"
