"""Series with several stacks: split by what tells them apart, refused where nothing does."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from pydicom.dataset import Dataset

from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.geometry import Allowed, assemble
from pipeline.dicom.decode.split_series import attributes_of, split_stacks
from pipeline.dicom.decode.stack_facts import read_stack_facts
from pipeline.errors import Rejected, RejectionCode

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
HEIGHTS = (0.0, 4.0, 8.0, 12.0)
Series = list[tuple[str, InstanceAttributes]]


def one(z: float, facts: dict[str, float | str] | None = None, **changes: object) -> InstanceAttributes:
    made = InstanceAttributes(
        sop_class_uid=MR_IMAGE, modality="MR", rows=4, columns=4, pixel_spacing_mm=(1.0, 1.0), orientation=AXIAL,
        positions=((0.0, 0.0, z),), stack_facts=tuple((name, (value,)) for name, value in (facts or {}).items()),
    )  # fmt: skip
    return replace(made, **changes)


def series(*images: InstanceAttributes) -> Series:
    numbered = [(f"i{number:04d}", image) for number, image in enumerate(images)]
    random.Random(1).shuffle(numbered)
    return numbered


def by(name: str, values: Sequence[float | str], heights: Sequence[float] = HEIGHTS) -> Series:
    return series(*(one(z, {name: value}) for value, z in product(values, heights)))


@pytest.mark.parametrize(
    ("name", "values", "first"),
    [
        ("EchoTime", (12.0, 96.0), "EchoTime 12 ms"),
        ("EchoNumbers", (1.0, 2.0, 3.0), "EchoNumbers 1"),
        ("DiffusionBValue", (0.0, 500.0, 1000.0), "DiffusionBValue 0 s/mm2"),
        ("TemporalPositionIdentifier", tuple(map(float, range(1, 41))), "TemporalPositionIdentifier 1"),
        ("TriggerTime", (0.0, 35.5, 71.0), "TriggerTime 0 ms"),
        ("AcquisitionNumber", (1.0, 2.0), "AcquisitionNumber 1"),
        ("StackID", (1.0, 2.0), "StackID 1"),
        ("InversionTime", (100.0, 2500.0), "InversionTime 100 ms"),
        ("FrameReferenceTime", (1000.0, 61000.0), "FrameReferenceTime 1000 ms"),
    ],
)
def test_each_value_is_a_stack(name: str, values: tuple[float, ...], first: str) -> None:
    stacks = split_stacks(by(name, values))
    assert len(stacks) == len(values) and stacks[0].reason == first
    assert len({stack.reason for stack in stacks}) == len(values)
    for number, stack in enumerate(stacks):
        expected = [(f"i{number * len(HEIGHTS) + place:04d}", 0) for place in range(len(HEIGHTS))]
        assert list(stack.geometry.order) == expected
        assert stack.geometry.spacing_mm == (4.0, 1.0, 1.0) and stack.geometry.is_volume


def test_magnitude_and_phase_are_told_apart_by_image_type() -> None:
    types = (("ORIGINAL", "PRIMARY", "M"), ("ORIGINAL", "PRIMARY", "P"))
    stacks = split_stacks(series(*(one(z, image_type=kind) for kind, z in product(types, HEIGHTS))))
    assert [stack.reason for stack in stacks] == [f"ImageType ORIGINAL\\PRIMARY\\{last}" for last in "MP"]


def test_b_values_with_directions_take_two_facts() -> None:
    """One image with b = 0, which has no direction, and three directions with b = 1000, per place."""
    directions = ("1 0 0", "0 1 0", "0 0 1")
    images = [one(z, {"DiffusionBValue": 0.0}) for z in HEIGHTS]
    images += [
        one(z, {"DiffusionBValue": 1000.0, "DiffusionGradientOrientation": turn})
        for turn, z in product(directions, HEIGHTS)
    ]
    stacks = split_stacks(series(*images))
    assert len(stacks) == 4
    assert stacks[0].reason.endswith("without DiffusionGradientOrientation") or "BValue 0" in stacks[0].reason
    assert all(len(stack.geometry.order) == len(HEIGHTS) for stack in stacks)


def test_echoes_of_a_time_series_take_two_facts() -> None:
    images = [
        one(z, {"EchoTime": echo, "TemporalPositionIdentifier": time})
        for time, echo, z in product((1.0, 2.0, 3.0), (10.0, 30.0), HEIGHTS)
    ]
    reasons = [stack.reason for stack in split_stacks(series(*images))]
    assert len(reasons) == 6 and reasons[0] == "EchoTime 10 ms, TemporalPositionIdentifier 1"


def test_trigger_times_that_differ_from_slice_to_slice_are_compared_by_rank() -> None:
    rng = np.random.default_rng(0)
    images = [
        one(z, {"TriggerTime": 40.0 * phase + float(rng.uniform(0, 5))}) for phase, z in product(range(5), HEIGHTS)
    ]
    stacks = split_stacks(series(*images))
    assert [stack.reason for stack in stacks] == [f"rank of TriggerTime {rank}" for rank in range(1, 6)]
    assert list(stacks[2].geometry.order) == [(f"i{8 + place:04d}", 0) for place in range(4)]


def test_a_cine_at_one_place_is_a_stack_per_phase() -> None:
    stacks = split_stacks(by("TriggerTime", [30.0 * phase for phase in range(20)], heights=(7.0,)))
    assert len(stacks) == 20 and all(len(stack.geometry.order) == 1 for stack in stacks)


def test_acquisitions_that_overlap_are_told_apart() -> None:
    first = [one(z, {"AcquisitionNumber": 1.0}) for z in (0.0, 5.0, 10.0)]
    second = [one(z, {"AcquisitionNumber": 2.0}) for z in (10.0, 15.0, 20.0, 25.0)]
    stacks = split_stacks(series(*first, *second))
    assert [len(stack.geometry.order) for stack in stacks] == [3, 4]


def test_what_cannot_be_told_apart_stays_refused() -> None:
    with pytest.raises(Rejected) as refused:
        split_stacks(series(*(one(z) for z in HEIGHTS * 2)))
    assert refused.value.code is RejectionCode.DUPLICATE_SLICES
    assert "4 of 8" in refused.value.sentence and "Split the series" not in refused.value.sentence


def test_a_number_of_every_single_image_tells_nothing_apart() -> None:
    images = [one(z, {"AcquisitionNumber": float(number)}) for number, z in enumerate((0.0, 4.0, 4.0, 8.0))]
    with pytest.raises(Rejected) as refused:
        split_stacks(series(*images))
    assert refused.value.code is RejectionCode.DUPLICATE_SLICES


def test_a_stack_whose_own_slices_are_irregular_is_not_made() -> None:
    images = [one(z, {"EchoTime": echo}) for echo, z in product((1.0, 2.0), (0.0, 4.0, 9.0, 20.0))]
    with pytest.raises(Rejected):
        split_stacks(series(*images))
    assert len(split_stacks(series(*images), Allowed(gaps=True))) == 2


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"orientation": CORONAL}, RejectionCode.MIXED_ORIENTATION), ({"rows": 8}, RejectionCode.MIXED_SIZES)],
)
def test_sizes_and_orientations_alone_split_nothing(changes: dict[str, object], code: RejectionCode) -> None:
    """A survey in several planes looks just so."""
    with pytest.raises(Rejected) as refused:
        split_stacks(series(*(one(z) for z in HEIGHTS), *(one(z, **changes) for z in HEIGHTS)))
    assert refused.value.code is code


def test_a_single_stack_is_not_split() -> None:
    whole = series(*(one(z, {"EchoTime": 10.0 + z}) for z in HEIGHTS))
    assert [(stack.reason, stack.geometry) for stack in split_stacks(whole)] == [("", assemble(whole))]


@pytest.mark.parametrize("rounded", [1, 2])
def test_positions_rounded_by_the_device_are_a_regular_stack(rounded: int) -> None:
    """Distances of 1.25 mm written to 0.1 mm are 1.2 and 1.3."""
    heights = [round(1.25 * number + 0.01, rounded) for number in range(30)]
    geometry = assemble(series(*(one(z) for z in heights)))
    assert geometry.is_volume and geometry.spacing_mm[0] == pytest.approx(1.25, abs=0.005)


@pytest.mark.parametrize("heights", [(0.0, 1.2, 2.6, 3.6), (0.0, 4.0, 11.0, 18.0)])
def test_distances_beyond_the_rounding_are_irregular(heights: tuple[float, ...]) -> None:
    with pytest.raises(Rejected) as refused:
        assemble(series(*(one(z) for z in heights)))
    assert refused.value.code is RejectionCode.IRREGULAR_SPACING


def test_facts_are_read_from_classic_elements_and_private_ones() -> None:
    ds = Dataset()
    ds.Modality, ds.EchoTime, ds.AcquisitionNumber = "MR", "96.5", "3"
    ds.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", "800")
    assert dict(read_stack_facts(ds, 1)) == {
        "EchoTime": (96.5,),
        "AcquisitionNumber": (3.0,),
        "DiffusionBValue": (800.0,),
    }
    other = Dataset()
    other.Modality = "MR"
    other.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x39, "IS", [1_000_000_700, 8, 0, 0])
    assert dict(read_stack_facts(other, 1)) == {"DiffusionBValue": (700.0,)}


def test_a_malformed_fact_counts_as_absent() -> None:
    ds = Dataset()
    ds.Modality = "MR"
    ds.add_new("EchoTime", "LO", "long")
    assert read_stack_facts(ds, 1) == ()


def enhanced(values: Sequence[tuple[float, float, str]]) -> Dataset:
    """An enhanced MR image: (height, b-value, frame type) per frame."""
    ds = Dataset()
    ds.Modality = "MR"
    items = []
    for _, b_value, kind in values:
        item, diffusion, frame_type, content = Dataset(), Dataset(), Dataset(), Dataset()
        diffusion.DiffusionBValue, frame_type.FrameType = b_value, ["ORIGINAL", "PRIMARY", "DIFFUSION", kind]
        content.StackID = "free text"
        item.MRDiffusionSequence, item.MRImageFrameTypeSequence = [diffusion], [frame_type]
        item.FrameContentSequence = [content]
        items.append(item)
    ds.PerFrameFunctionalGroupsSequence = items
    return ds


def test_frames_of_an_enhanced_image_are_told_apart_by_functional_groups() -> None:
    values = [(z, b, "NONE" if b else "ADC") for b, z in product((0.0, 600.0), HEIGHTS)]
    facts = read_stack_facts(enhanced(values), len(values))
    assert "StackID" not in dict(facts) and "EchoTime" not in dict(facts)
    places = tuple((0.0, 0.0, z) for z, _, _ in values)
    image = one(0.0, frames=len(values), positions=places, stack_facts=facts)
    stacks = split_stacks([("i", image)])
    assert [stack.reason for stack in stacks] == ["DiffusionBValue 0 s/mm2", "DiffusionBValue 600 s/mm2"]
    assert [frame for _, frame in stacks[1].geometry.order] == [4, 5, 6, 7]
    assert attributes_of(image, 0).image_type[-1] == "ADC"


def test_the_patients_own_name_is_no_frame_type() -> None:
    """Nor is it a number of a stack: what tells stacks apart is printed and stored."""
    values = [(0.0, 0.0, "NONE"), (1.0, 0.0, "ANNA ZIMMERMANN"), (2.0, 0.0, "MAGNITUDE")]
    ds = enhanced(values)
    ds.PatientName = "ZIMMERMANN^ANNA"
    ds.PerFrameFunctionalGroupsSequence[0].MRImageFrameTypeSequence[0].FrameType = ["ZIMMERMANN", "SCOUT ANNA", "M"]
    for item in ds.PerFrameFunctionalGroupsSequence:
        item.FrameContentSequence[0].StackID = "19700101"
    facts = dict(read_stack_facts(ds, len(values)))
    assert facts["FrameType"] == (
        "OT\\SCOUT\\M",
        "ORIGINAL\\PRIMARY\\DIFFUSION",
        "ORIGINAL\\PRIMARY\\DIFFUSION\\MAGNITUDE",
    )
    assert "StackID" not in facts


def numbered(frames: Sequence[str], heights: Sequence[float]) -> tuple[Series, dict[str, str]]:
    images = series(*(one(z, instance_number=number) for number, z in enumerate(heights, 1)))
    return images, {f"i{number:04d}": frame for number, frame in enumerate(frames)}


def test_each_frame_of_reference_is_a_stack() -> None:
    """The patient was positioned again: heights that interleave to an even stack do not belong together."""
    images, frames = numbered(["y", "x"] * 4, [2.0 * number for number in range(8)])
    stacks = split_stacks(images, frames_of_reference=frames)
    assert [stack.reason for stack in stacks] == ["frame of reference 1 of 2", "frame of reference 2 of 2"]
    assert [[name for name, _ in stack.geometry.order] for stack in stacks] == [
        [f"i{number:04d}" for number in range(first, 8, 2)] for first in (0, 1)
    ]
    assert all(stack.geometry.spacing_mm[0] == 4.0 and stack.geometry.is_volume for stack in stacks)
    assert len(split_stacks(images)) == 1  # without the names they would be read as one


def test_stacks_within_a_frame_of_reference_are_told_apart_too() -> None:
    images = series(*(one(z, {"EchoTime": echo}) for _, echo, z in product("xy", (10.0, 30.0), HEIGHTS)))
    frames = {name: "x" if int(name[1:]) < 8 else "y" for name, _ in images}
    reasons = [stack.reason for stack in split_stacks(images, frames_of_reference=frames)]
    assert len(reasons) == 4 and reasons[1] == "frame of reference 1 of 2, EchoTime 30 ms"


def test_images_without_a_frame_join_the_only_one_and_none_of_several() -> None:
    images, frames = numbered(["x", "", "x", ""], HEIGHTS)
    assert [stack.reason for stack in split_stacks(images, frames_of_reference=frames)] == [""]
    images, frames = numbered(["x", "x", "y", "y", "", ""], [0.0, 4.0] * 3)
    stacks = split_stacks(images, frames_of_reference=frames)
    assert [stack.reason for stack in stacks] == [
        *(f"frame of reference {place} of 2" for place in (1, 2)),
        "without a frame of reference",
    ]
    assert [len(stack.geometry.order) for stack in stacks] == [2, 2, 2]


def test_a_frame_of_reference_that_is_not_a_stack_is_named_in_the_refusal() -> None:
    images, frames = numbered(["x"] * 3 + ["y"] * 3, [0.0, 4.0, 8.0, 0.0, 0.0, 4.0])
    with pytest.raises(Rejected, match="Frame of reference 2 of 2: 1 of 3") as refused:
        split_stacks(images, frames_of_reference=frames)
    assert refused.value.code is RejectionCode.DUPLICATE_SLICES


def test_radiographs_are_not_parted_by_a_frame_of_reference() -> None:
    images = [(name, replace(image, modality="DX", sop_class_uid="")) for name, image in series(one(0.0), one(1.0))]
    assert [stack.reason for stack in split_stacks(images, frames_of_reference={"i0000": "x", "i0001": "y"})] == [""]
