"""Parts of a series whose positions can be compared: those of one frame of reference (PS3.3 C.7.4.1).

A series has at most one frame of reference (PS3.3 A.1.2.5), but archives that merge series, and patients who are
positioned again, break that rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.dicom.decode.attributes import InstanceAttributes

Named = tuple[str, InstanceAttributes]


def by_frame_of_reference(
    instances: Sequence[Named], frames_of_reference: Mapping[str, str]
) -> list[tuple[str, list[Named]]]:
    """Return the parts of a series with their reasons: one, without a reason, unless it names two frames or more.

    Images that name none belong to the one that the others name, since a series has at most one. Where the others name
    several, nobody can say to which they belong, so they are a part of their own. Images without a position in space
    (radiographs, captures) are never parted.

    Args:
        instances: (instance id, attributes) of one series.
        frames_of_reference: of the instances, by id; "" or missing where the file names none.
    """
    names = {frames_of_reference.get(name, "") for name, _ in instances} - {""}
    if len(names) < 2 or not all(one.positions and not one.is_projection for _, one in instances):
        return [("", list(instances))]
    parts = {frame: [one for one in instances if frames_of_reference.get(one[0], "") == frame] for frame in names}
    ordered = sorted(parts, key=lambda frame: (_first_number(parts[frame]), frame))
    named = [(f"frame of reference {place} of {len(parts)}", parts[frame]) for place, frame in enumerate(ordered, 1)]
    without = [one for one in instances if not frames_of_reference.get(one[0])]
    return [*named, *([("without a frame of reference", without)] if without else [])]


def _first_number(part: Sequence[Named]) -> tuple[float, float]:
    """Return the lowest instance number and position, which do not depend on the key of the pseudonyms."""
    numbers = [one.instance_number for _, one in part if one.instance_number is not None]
    return min(numbers, default=float("inf")), min(position[2] for _, one in part for position in one.positions)
