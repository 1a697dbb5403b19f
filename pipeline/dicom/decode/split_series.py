"""Split a series that holds several stacks: frames of reference, echoes, b-values, cardiac phases, acquisitions.

Positions in two frames of reference are never compared (PS3.3 C.7.4.1), so each is split by itself. A series whose
slices form one stack stays whole. Otherwise up to three facts of the headers (`stack_facts`) are tried, few before
many, and the first split whose parts are all stacks is taken. Times that differ from slice to slice (trigger times of a
gated series) are compared by rank: the n-th image at each position belongs to the n-th stack. Sizes and orientations
alone split nothing: such series are often scouts. What nothing tells apart stays refused.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from types import MappingProxyType
from typing import cast

import numpy as np

from pipeline.dicom.decode.attributes import Cosines, InstanceAttributes
from pipeline.dicom.decode.content import Content, content_of
from pipeline.dicom.decode.frames_of_reference import by_frame_of_reference
from pipeline.dicom.decode.geometry import (
    REGULAR,
    Allowed,
    Frame,
    SeriesGeometry,
    assemble,
    list_frames,
    normal_of,
    require_volume,
    stack_frames,
)
from pipeline.dicom.decode.stack_facts import Fact, fact_of
from pipeline.errors import Rejected, RejectionCode

# In the order in which they are tried; "ImageType" and "ConvolutionKernel" are attributes of every image.
FACTS = (
    *("StackID", "EchoTime", "EchoNumbers", "DiffusionBValue", "DiffusionGradientOrientation"),
    *("TemporalPositionIdentifier", "TriggerTime", "NominalPercentageOfCardiacPhase", "ImageType", "InversionTime"),
    *("FlipAngle", "RepetitionTime", "ConvolutionKernel", "KVP", "FrameReferenceTime", "AcquisitionNumber"),
)
RANKED = ("TemporalPositionIdentifier", "TriggerTime", "FrameReferenceTime", "AcquisitionNumber")
_MS = ("EchoTime", "TriggerTime", "InversionTime", "RepetitionTime", "FrameReferenceTime")
UNITS = dict.fromkeys(_MS, "ms") | {"DiffusionBValue": "s/mm2", "FlipAngle": "degrees", "KVP": "kV"}
ABSENT = ""
MOST_FACTS = 3
SAME_PLACE_MM = 0.05  # slices of two stacks at one place may differ by the rounding of their positions
LEAST_SLICES = 3  # two slices are always regular, so a split by gaps alone needs more
_SEVERAL = frozenset({RejectionCode.DUPLICATE_SLICES, RejectionCode.MIXED_ORIENTATION, RejectionCode.MIXED_SIZES})
_GAPS = frozenset({RejectionCode.MISSING_SLICES, RejectionCode.IRREGULAR_SPACING, RejectionCode.MIXED_SPACING})

Key = tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Stack:
    """One stack of a series: its slices in order, and the facts that tell it from the others.

    `reason` is "" where the series is a single stack, else such as "EchoTime 30 ms".
    """

    geometry: SeriesGeometry
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Placed:
    """A frame, its facts, and the number of its place: of several frames at one place only one can be in a stack."""

    frame: Frame
    facts: Mapping[str, Fact]
    place: tuple[int, int]


def split_stacks(
    instances: Sequence[tuple[str, InstanceAttributes]],
    allowed: Allowed = REGULAR,
    frames_of_reference: Mapping[str, str] = MappingProxyType({}),
) -> list[Stack]:
    """Return the stacks of a series, one if it is a single stack, in the order of their facts.

    Args:
        instances: (instance id, attributes) of one series, in any order.
        frames_of_reference: of the instances, by id; "" or missing where the file names none (`by_frame_of_reference`).
        allowed: irregularities to accept. A volume's least number of slices is required of a single stack only; check
            the others with `require_stack_volume`.

    Raises:
        Rejected: as `assemble`, where no facts tell stacks apart.
    """
    parts = by_frame_of_reference(instances, frames_of_reference)
    if len(parts) == 1:
        return _stacks(instances, allowed)
    each = replace(allowed, volume_of=None)
    return [
        replace(stack, reason=", ".join(filter(None, (reason, stack.reason))))
        for reason, part in parts
        for stack in _named(reason, part, each)
    ]


def _named(reason: str, part: Sequence[tuple[str, InstanceAttributes]], allowed: Allowed) -> list[Stack]:
    try:
        return _stacks(part, allowed)
    except Rejected as error:
        raise Rejected(error.code, f"{reason[0].upper()}{reason[1:]}: {error.sentence}") from None


def _stacks(instances: Sequence[tuple[str, InstanceAttributes]], allowed: Allowed) -> list[Stack]:
    try:
        return [Stack(assemble(instances, allowed))]
    except Rejected as error:
        if error.code not in _SEVERAL | _GAPS:
            raise
        stacks = _split(instances, replace(allowed, volume_of=None), error.code)
        if not stacks:
            raise _explained(error) from None
        return stacks


def require_stack_volume(stack: Stack, allowed: Allowed) -> None:
    """Refuse a stack that is too small or irregular for a volume, if one is required (Rejected as `assemble`)."""
    geometry = stack.geometry
    if allowed.volume_of is not None:
        require_volume(len(geometry.order), geometry.spacing_mm, allowed.volume_of, geometry.is_volume)


def attributes_of(attributes: InstanceAttributes, frame: int) -> InstanceAttributes:
    """Return an image's attributes with the frame's own type, which decides whether a route reads its stack."""
    kind = fact_of(attributes.stack_facts, "FrameType", frame)
    if kind is None:
        return attributes
    content = "" if attributes.content == Content.MIXED else attributes.content
    own = replace(attributes, image_type=tuple(str(kind).upper().split("\\")), content=content)
    return replace(own, content=str(content_of(own)))


def _explained(error: Rejected) -> Rejected:
    if error.code is not RejectionCode.DUPLICATE_SLICES:
        return error
    first = error.sentence.split(";")[0]
    sentence = f"{first}, and no echo time, b-value, phase or acquisition number in their headers tells stacks apart. "
    return Rejected(error.code, sentence + "The series is left out. Export each of its stacks as a series of its own.")


def _split(
    instances: Sequence[tuple[str, InstanceAttributes]], allowed: Allowed, code: RejectionCode
) -> list[Stack] | None:
    placed = _placed(instances)
    names = [name for name in FACTS if _varies(placed, name)]
    least = 1 if code in _SEVERAL else LEAST_SLICES
    for count in range(1, MOST_FACTS + 1):
        for chosen in _fewest_first(placed, combinations(names, count), least):
            if stacks := _assembled(placed, chosen, allowed):
                return stacks
    return _ranked(placed, names, allowed) if code is RejectionCode.DUPLICATE_SLICES else None


def _placed(instances: Sequence[tuple[str, InstanceAttributes]]) -> list[_Placed]:
    by_name = dict(instances)
    frames = [frame for name, attributes in instances for frame in list_frames(name, attributes)]
    facts = [_facts(by_name[frame.instance_id], frame.index) for frame in frames]
    return [_Placed(*item) for item in zip(frames, facts, _places(frames), strict=True)]


def _facts(attributes: InstanceAttributes, frame: int) -> dict[str, Fact]:
    own = {name: fact_of(attributes.stack_facts, name, frame) for name, _ in attributes.stack_facts}
    kind = own.pop("FrameType", None) or "\\".join(attributes.image_type)
    own |= {"ImageType": kind or None, "ConvolutionKernel": attributes.kernel or None}
    return {name: value for name, value in own.items() if value is not None}


def _places(frames: Sequence[Frame]) -> list[tuple[int, int]]:
    """Number the places: the orientation, then the height along its normal, with heights that nearly agree as one."""
    turns = [tuple(round(value, 2) + 0.0 for value in cast(Cosines, frame.cosines)) for frame in frames]
    places: list[tuple[int, int]] = [(0, 0)] * len(frames)
    for turn, cosines in enumerate(sorted(set(turns))):
        members = [index for index, own in enumerate(turns) if own == cosines]
        normal = normal_of(cast(Cosines, frames[members[0]].cosines))
        heights = np.array([frames[index].position for index in members], dtype=np.float64) @ normal
        order = np.argsort(heights, kind="stable")
        level = np.concatenate([[0], np.cumsum(np.diff(heights[order]) > SAME_PLACE_MM)])
        for rank, index in zip(level, order, strict=True):
            places[members[index]] = (turn, int(rank))
    return places


def _varies(placed: Sequence[_Placed], name: str) -> bool:
    """Return whether the fact differs; being without it differs too, as the images with b = 0 have no direction."""
    return len({item.facts.get(name) for item in placed}) > 1


def _fewest_first(placed: Sequence[_Placed], choices: Iterator[tuple[str, ...]], least: int) -> list[tuple[str, ...]]:
    """Return the choices of facts that leave one frame per place, those with the fewest stacks first.

    A fact that differs from slice to slice would make a stack of every slice, which tells nothing apart: a split needs
    two slices per stack on average, unless the whole series is at one place.
    """
    one_place = len({item.place for item in placed}) == 1
    usable: list[tuple[int, tuple[str, ...]]] = []
    for chosen in choices:
        keys = [_key(item, chosen) for item in placed]
        sizes = Counter(keys)
        single = len({(key, item.place) for key, item in zip(keys, placed, strict=True)}) == len(placed)
        if single and min(sizes.values()) >= least and (one_place or 2 * len(sizes) <= len(placed)):
            usable.append((len(sizes), chosen))
    return [chosen for _, chosen in sorted(usable, key=lambda item: item[0])]


def _key(item: _Placed, names: Sequence[str]) -> Key:
    return tuple(item.facts.get(name, ABSENT) for name in names)


def _assembled(placed: Sequence[_Placed], names: Sequence[str], allowed: Allowed) -> list[Stack] | None:
    """Return the stacks of a split, or None if one of its parts is not a stack."""
    parts: dict[Key, list[Frame]] = defaultdict(list)
    for item in placed:
        parts[_key(item, names)].append(item.frame)
    try:
        return [Stack(stack_frames(parts[key], allowed), _reason(names, key)) for key in sorted(parts, key=_sortable)]
    except Rejected:
        return None


def _sortable(key: Key) -> tuple[tuple[int, float, str], ...]:
    return tuple((0, value, "") if isinstance(value, float | int) else (1, 0.0, value) for value in key)


def _reason(names: Sequence[str], key: Key) -> str:
    return ", ".join(_written(name, value) for name, value in zip(names, key, strict=True))


def _written(name: str, value: Fact) -> str:
    if value == ABSENT:
        return f"without {name}"
    return f"{name} {value:.10g} {UNITS.get(name, '')}".strip() if isinstance(value, float | int) else f"{name} {value}"


def _ranked(placed: Sequence[_Placed], names: Sequence[str], allowed: Allowed) -> list[Stack] | None:
    """Split by the rank of a time at each place, alone or within another fact."""
    for name in (one for one in RANKED if one in names and all(one in item.facts for item in placed)):
        for other in ((), *((one,) for one in names if one != name)):
            ranks = _ranks(placed, name, other)
            if ranks is None:
                continue
            label = f"rank of {name}"
            ranked = [
                replace(item, facts={**item.facts, label: rank}) for item, rank in zip(placed, ranks, strict=True)
            ]
            if stacks := _assembled(ranked, (*other, label), allowed):
                return stacks
    return None


def _ranks(placed: Sequence[_Placed], name: str, other: Sequence[str]) -> list[int] | None:
    """Return each frame's rank at its place, from 1; None where places have different numbers of frames, or ties."""
    by_place: dict[tuple[Key, tuple[int, int]], list[Fact]] = defaultdict(list)
    for item in placed:
        by_place[_key(item, other), item.place].append(item.facts[name])
    counts: dict[Key, set[int]] = defaultdict(set)
    for (key, _), values in by_place.items():
        if len(set(values)) < len(values):
            return None
        counts[key].add(len(values))
    if any(len(sizes) > 1 for sizes in counts.values()):
        return None
    order = {place: sorted(values) for place, values in by_place.items()}
    return [order[_key(item, other), item.place].index(item.facts[name]) + 1 for item in placed]
