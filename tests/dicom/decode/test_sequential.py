"""Sequential stacks, whose slice distance changes on purpose, are read slice by slice; gaps are not taken for them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import pytest

from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.geometry import Allowed, assemble
from pipeline.dicom.decode.split_series import split_stacks
from pipeline.errors import Rejected, RejectionCode

CT = "1.2.840.10008.5.1.4.1.1.2"


def head(
    gaps: Sequence[float], thicknesses: Sequence[float] = (), shear: float = 0.0
) -> list[tuple[str, InstanceAttributes]]:
    """Slices of a head CT at these distances from each other."""
    heights = list(accumulate(gaps, initial=-20.0))
    return [
        (
            f"{number}",
            InstanceAttributes(
                sop_class_uid=CT,
                modality="CT",
                instance_number=number,
                positions=((0.0, shear * height, height),),
                orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
                pixel_spacing_mm=(0.5, 0.5),
                slice_thickness_mm=thicknesses[number] if thicknesses else None,
            ),
        )
        for number, height in enumerate(heights)
    ]


@pytest.mark.parametrize(
    "gaps",
    [
        (4, 4, 4, 4, 7, 7, 7),
        (4, 4, 4, 5.5, 7, 7, 7),
        (5, 5, 5, 10, 10, 10),  # not every second slice missing
        (10, 10, 10, 5, 5, 5),
        (2.5, 2.5, 2.5, 5, 5, 10, 10, 10),
        (2.4, 2.4, 2.4, 2.4, 4.8, 4.8, 4.8),
        (3.0, 3.1, 3.0, 3.0, 6.1, 6.0, 6.0),  # positions rounded to 0.1 mm
    ],
)
def test_blocks_of_even_distances_are_one_stack_without_a_distance(gaps: Sequence[float]) -> None:
    series = head(gaps)
    geometry = assemble(series)
    assert [name for name, _ in geometry.order] == [name for name, _ in series]
    assert (geometry.spacing_mm, geometry.is_volume, geometry.missing) == ((None, 0.5, 0.5), False, 0)
    assert geometry.relative_positions[1] == pytest.approx(gaps[0] / sum(gaps))
    assert len(split_stacks(series)) == 1


def test_slices_of_changing_thickness_that_touch_are_sequential() -> None:
    """5, 5, 8, 8, 3 and 3 mm: centres of touching slices are half of both thicknesses apart."""
    thicknesses = [5.0, 5.0, 8.0, 8.0, 3.0, 3.0]
    gaps = [5.0, 6.5, 8.0, 5.5, 3.0]
    assert assemble(head(gaps, thicknesses)).missing == 0
    with pytest.raises(Rejected):
        assemble(head([5.0, 6.5, 8.0, 8.5, 3.0], thicknesses))


@pytest.mark.parametrize(
    ("gaps", "code"),
    [
        ((4, 4, 8, 4, 7, 7), RejectionCode.IRREGULAR_SPACING),  # one slice missing in the first block
        ((4, 4, 4, 8), RejectionCode.MISSING_SLICES),
        ((4, 4, 8, 8, 4, 4), RejectionCode.MISSING_SLICES),  # finer, coarser, finer: nobody plans that
        ((4, 4, 4, 9, 7, 7, 7), RejectionCode.IRREGULAR_SPACING),  # more than touching slices leave
        ((4, 5, 4, 7, 3), RejectionCode.IRREGULAR_SPACING),
    ],
)
def test_gaps_are_still_refused(gaps: Sequence[float], code: RejectionCode) -> None:
    with pytest.raises(Rejected) as caught:
        assemble(head(gaps))
    assert caught.value.code == code


def test_a_sequential_stack_is_no_volume() -> None:
    with pytest.raises(Rejected) as caught:
        assemble(head((4, 4, 4, 7, 7, 7)), Allowed(volume_of=4))
    assert caught.value.code == RejectionCode.IRREGULAR_SPACING


def test_a_tilted_sequential_stack_needs_only_the_leave_for_tilt() -> None:
    series = head((4, 4, 4, 7, 7, 7), shear=0.3)
    assert not assemble(series, Allowed(tilt=True)).is_volume
    with pytest.raises(Rejected) as caught:
        assemble(series)
    assert caught.value.code == RejectionCode.GANTRY_TILT
