"""Facts that tell the stacks of one series apart: echo, b-value, phase, acquisition, one value per frame.

Classic images hold them in the data set, enhanced ones in functional groups (PS3.3 C.7.6.16, C.8.13). Numbers and code
strings only, the latter held to the rules of Image Type (`terms`); a StackID that is not a short number may be anything
and is left out. Before DiffusionBValue became standard,
vendors wrote the b-value into private elements, which are read where their creator is present.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from pydicom.dataset import Dataset
from pydicom.tag import Tag

from pipeline.dicom.decode.fields import (
    read_first_item,
    read_integer,
    read_number,
    read_numbers,
    read_optional_text,
    read_value,
)
from pipeline.dicom.decode.frames import Groups
from pipeline.dicom.decode.persons import personal_words
from pipeline.dicom.decode.terms import hold_image_type
from pipeline.dicom.decode.vendors import GE_B_VALUE_OFFSET, PRIVATE_B_VALUES
from pipeline.errors import Rejected

Fact = float | str
StackFacts = tuple[tuple[str, tuple[Fact, ...]], ...]  # name -> one value for all frames, or one per frame
Read = Callable[[Groups, int], "float | str | None"]

_BLOCKS = range(0x10, 0x14)  # where a creator may reserve its block (PS3.5 7.8.1); devices take the first ones
_CREATORS = {(group, block): Tag(group, block) for group, *_ in PRIVATE_B_VALUES for block in _BLOCKS}
_STACK_NUMBER = re.compile(r"[0-9]{1,4}")  # a longer one may be a birth date or the number of a patient
_STACKED = frozenset({"CT", "MR", "NM", "PT"})


def read_stack_facts(ds: Dataset, frames: int, personal: frozenset[str] | None = None) -> StackFacts:
    """Return the facts that the image has, in the order in which they are tried; a malformed one counts as absent.

    `personal` are the words that name a person, where they are at hand; no fact contains one.
    """
    if read_optional_text(ds, "Modality") not in _STACKED:
        return ()
    groups = Groups.read(ds, frames)
    facts = []
    for name, read in _READERS.items():
        values = [_value(read, groups, frame) for frame in range(frames if groups.frames else 1)]
        if name == "FrameType":
            values = _held(values, personal_words(ds) if personal is None else personal)
        given = [value for value in values if value is not None]
        if len(given) == len(values):
            facts.append((name, tuple(given[:1] if len(set(given)) == 1 else given)))
    return tuple(facts)


def _held(values: Sequence[Fact | None], personal: frozenset[str]) -> list[Fact | None]:
    """Return Frame Types by the rules of Image Type, each different one held once."""
    held = {value: "\\".join(hold_image_type(str(value).split("\\"), personal)) for value in set(values) if value}
    return [held.get(value) or None if value else None for value in values]


def _value(read: Read, groups: Groups, frame: int) -> Fact | None:
    try:
        return read(groups, frame)
    except Rejected:  # nothing but the split depends on it
        return None


def _of(keyword: str, *nested: tuple[str, str]) -> Read:
    """Return a reader of a number: from the functional group (macro, keyword) that has it, else from the data set."""

    def _read(groups: Groups, frame: int) -> Fact | None:
        for macro, inner in nested:
            item = groups.read_macro(macro, frame)
            if item is not None and (value := read_number(item, inner)) is not None:
                return value
        return read_number(groups.ds, keyword) if keyword else None

    return _read


def _stack_id(groups: Groups, frame: int) -> Fact | None:
    item = groups.read_macro("FrameContentSequence", frame)
    text = "" if item is None else read_optional_text(item, "StackID")
    return float(text) if _STACK_NUMBER.fullmatch(text) else None


def _b_value(groups: Groups, frame: int) -> Fact | None:
    value = _of("DiffusionBValue", ("MRDiffusionSequence", "DiffusionBValue"))(groups, frame)
    return _private_b_value(groups.ds) if value is None else value


def _private_b_value(ds: Dataset) -> float | None:
    for group, creator, offset in PRIVATE_B_VALUES:
        owners = (b for b in _BLOCKS if _CREATORS[group, b] in ds and str(ds[group, b].value).strip() == creator)
        block = next(owners, None)
        tag = (group, (block or 0) << 8 | offset)
        if block is None or tag not in ds:
            continue
        value = ds[tag].value
        first = value[0] if isinstance(value, Sequence) and not isinstance(value, str | bytes) and value else value
        try:
            number = float(first)
        except (ValueError, TypeError):
            continue
        return number - GE_B_VALUE_OFFSET if number >= GE_B_VALUE_OFFSET else number
    return None


def _direction(groups: Groups, frame: int) -> Fact | None:
    item = groups.read_macro("MRDiffusionSequence", frame)
    inner = read_first_item(item, "DiffusionGradientDirectionSequence")
    values = read_numbers(groups.ds if inner is None else inner, "DiffusionGradientOrientation", 3)
    return None if values is None else " ".join(f"{value:.4f}" for value in values)


def _frame_type(groups: Groups, frame: int) -> Fact | None:
    """Return FrameType (PS3.3 C.8.16.1), whose values are code strings; classic images have ImageType instead."""
    for macro in ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence"):
        item = groups.read_macro(macro, frame)
        value = None if item is None else read_value(item, "FrameType")
        if value is not None:
            return value if isinstance(value, str) else "\\".join(str(part) for part in value)
    return None


def _acquisition(groups: Groups, frame: int) -> Fact | None:
    item = groups.read_macro("FrameContentSequence", frame)
    value = None if item is None else read_integer(item, "FrameAcquisitionNumber")
    return read_number(groups.ds, "AcquisitionNumber") if value is None else float(value)


_CARDIAC = "CardiacSynchronizationSequence"
_READERS: dict[str, Read] = {
    "StackID": _stack_id,
    "EchoTime": _of("EchoTime", ("MREchoSequence", "EffectiveEchoTime")),
    "EchoNumbers": _of("EchoNumbers"),
    "DiffusionBValue": _b_value,
    "DiffusionGradientOrientation": _direction,
    "TemporalPositionIdentifier": _of("TemporalPositionIdentifier", ("FrameContentSequence", "TemporalPositionIndex")),
    "TriggerTime": _of(
        "TriggerTime", (_CARDIAC, "NominalCardiacTriggerDelayTime"), (_CARDIAC, "NominalPercentageOfCardiacPhase")
    ),
    "NominalPercentageOfCardiacPhase": _of("NominalPercentageOfCardiacPhase"),
    "FrameType": _frame_type,
    "InversionTime": _of("InversionTime", ("MRModifierSequence", "InversionTimes")),
    "FlipAngle": _of("FlipAngle", ("MRTimingAndRelatedParametersSequence", "FlipAngle")),
    "RepetitionTime": _of("RepetitionTime", ("MRTimingAndRelatedParametersSequence", "RepetitionTime")),
    "KVP": _of("KVP", ("CTXRayDetailsSequence", "KVP")),
    "FrameReferenceTime": _of("FrameReferenceTime"),
    "AcquisitionNumber": _acquisition,
}


def fact_of(facts: StackFacts, name: str, frame: int) -> Fact | None:
    """Return one frame's value of a fact, or None where the image does not have it."""
    values: Sequence[Fact] = next((values for key, values in facts if key == name), ())
    return values[frame] if len(values) > 1 else next(iter(values), None)
