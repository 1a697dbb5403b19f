"""Stacks built by hand: which ones are volumes, and a separate code for each fault."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.geometry import Allowed, assemble
from pipeline.errors import Rejected, RejectionCode

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
Series = list[tuple[str, InstanceAttributes]]


def _slice(z: float, **changes: object) -> InstanceAttributes:
    made = InstanceAttributes(
        sop_class_uid=CT_IMAGE, modality="CT", rows=4, columns=5, pixel_spacing_mm=(0.5, 0.7), orientation=AXIAL,
        positions=((10.0, 20.0, z),), slice_thickness_mm=9.0,
    )  # fmt: skip
    return replace(made, **changes)


def _series(*heights: float) -> Series:
    return [(f"i{index}", _slice(z)) for index, z in enumerate(heights)]


def _code(series: Series, **options: bool) -> RejectionCode:
    with pytest.raises(Rejected) as caught:
        assemble(series, **options)
    return caught.value.code


def test_a_regular_stack_in_any_order() -> None:
    """Heights 5, 0, 2.5, 7.5: order i1 i2 i0 i3, spacing 2.5 from positions and not the thickness of 9."""
    geometry = assemble(_series(5.0, 0.0, 2.5, 7.5))
    assert geometry.order == (("i1", 0), ("i2", 0), ("i0", 0), ("i3", 0))
    assert geometry.spacing_mm == (2.5, 0.5, 0.7)
    assert geometry.relative_positions == pytest.approx((0, 1 / 3, 2 / 3, 1))
    assert geometry.is_volume
    assert geometry.orientation == AXIAL


def test_coronal_slices_are_ordered_along_their_normal() -> None:
    """Row (1,0,0) x column (0,0,-1) = (0*-1 - 0*0, 0*0 - 1*-1, 1*0 - 0*0) = (0, 1, 0): order by y, ascending."""
    series = [
        (name, _slice(0, orientation=CORONAL, positions=((0.0, y, 0.0),))) for name, y in [("b", 3.0), ("a", 1.0)]
    ]
    assert assemble(series).order == (("a", 0), ("b", 0))


@given(st.floats(0.3, 10), st.integers(2, 30), st.floats(-1.5, 1.5), st.integers(0, 99))
def test_any_rotation_gives_the_same_stack(step: float, count: int, angle: float, seed: int) -> None:
    """Rotate axial slices about x: spacing and order stay."""
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    orientation = (1.0, 0.0, 0.0, 0.0, cosine, sine)
    series = [
        (f"{i:03d}", _slice(0, orientation=orientation, positions=((1.0, -sine * i * step, cosine * i * step),)))
        for i in range(count)
    ]
    shuffled = random.Random(seed).sample(series, count)
    geometry = assemble(shuffled)
    assert [name for name, _ in geometry.order] == [name for name, _ in series]
    assert geometry.spacing_mm[0] == pytest.approx(step)


def test_frames_of_an_enhanced_instance() -> None:
    frames = _slice(0, frames=3, positions=((0.0, 0.0, 4.0), (0.0, 0.0, 2.0), (0.0, 0.0, 0.0)))
    geometry = assemble([("e", frames)])
    assert geometry.order == (("e", 2), ("e", 1), ("e", 0))
    assert geometry.spacing_mm[0] == 2.0


def test_missing_slices() -> None:
    series = _series(0, 1, 2, 5, 6)
    assert _code(series) == RejectionCode.MISSING_SLICES
    geometry = assemble(series, Allowed(gaps=True))
    assert (geometry.missing, geometry.spacing_mm[0], geometry.is_volume) == (2, 1.0, True)


def test_irregular_spacing() -> None:
    series = _series(0, 1, 2.4, 3.4)
    assert _code(series) == RejectionCode.IRREGULAR_SPACING
    geometry = assemble(series, Allowed(gaps=True))
    assert (geometry.spacing_mm[0], geometry.is_volume) == (None, False)


def test_rounded_positions_are_regular() -> None:
    assert assemble(_series(*(round(i * 0.7, 3) for i in range(50)))).spacing_mm[0] == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"rows": 6}, RejectionCode.MIXED_SIZES),
        ({"orientation": CORONAL}, RejectionCode.MIXED_ORIENTATION),
        ({"pixel_spacing_mm": (0.6, 0.7)}, RejectionCode.MIXED_SPACING),
        ({"pixel_spacing_mm": None}, RejectionCode.MIXED_SPACING),
        ({"positions": ((10.0, 20.0, 1.0),)}, RejectionCode.DUPLICATE_SLICES),
        ({"positions": ()}, RejectionCode.NO_GEOMETRY),
        ({"orientation": None}, RejectionCode.NO_GEOMETRY),
    ],
)
def test_one_odd_slice_has_its_own_code(change: dict, code: RejectionCode) -> None:
    series = [*_series(0, 1, 2), ("odd", _slice(3, **change))]
    assert _code(series) == code


def test_gantry_tilt() -> None:
    """Slices tilted by 15 degrees, table moving along z: the stack shears by 15 degrees off its normal."""
    cosine, sine = float(np.cos(np.radians(15))), float(np.sin(np.radians(15)))
    orientation = (1.0, 0.0, 0.0, 0.0, cosine, sine)
    series = [(f"{i}", _slice(i * 5.0, orientation=orientation)) for i in range(4)]
    with pytest.raises(Rejected, match="15.0 degrees") as caught:
        assemble(series)
    assert caught.value.code == RejectionCode.GANTRY_TILT
    geometry = assemble(series, Allowed(tilt=True))
    assert [name for name, _ in geometry.order] == ["0", "1", "2", "3"] and not geometry.is_volume
    assert geometry.spacing_mm[0] == pytest.approx(5.0 * cosine)  # along the normal, not along the table


def test_a_header_tilt_alone_is_not_shear() -> None:
    assert assemble([(n, replace(a, gantry_tilt_degrees=15.0)) for n, a in _series(0, 1)]).is_volume


def test_invalid_direction_cosines() -> None:
    zero = (0.0,) * 6
    assert _code([(n, replace(a, orientation=zero)) for n, a in _series(0, 1)]) == RejectionCode.NO_GEOMETRY


def test_ct_without_positions_is_refused_and_secondary_capture_is_not() -> None:
    bare = [(n, replace(a, positions=(), orientation=None)) for n, a in _series(0, 1)]
    assert _code(bare) == RejectionCode.NO_GEOMETRY
    captured = [
        (n, replace(a, sop_class_uid=SECONDARY_CAPTURE, instance_number=9 - i)) for i, (n, a) in enumerate(bare)
    ]
    geometry = assemble(captured)
    assert geometry.order == (("i1", 0), ("i0", 0))
    assert (geometry.is_volume, geometry.spacing_mm) == (False, (None, 0.5, 0.7))


def test_projections_may_differ_in_size() -> None:
    series = [("pa", InstanceAttributes(modality="DX", rows=10, columns=8, instance_number=1)),
              ("lat", InstanceAttributes(modality="DX", rows=12, columns=8, instance_number=2))]  # fmt: skip
    geometry = assemble(series)
    assert geometry.order == (("pa", 0), ("lat", 0))
    assert geometry.spacing_mm == (None, None, None)


def test_a_single_slice() -> None:
    geometry = assemble(_series(7.0))
    assert (geometry.relative_positions, geometry.spacing_mm, geometry.is_volume) == ((0.5,), (None, 0.5, 0.7), False)


def test_unknown_pixel_spacing_is_not_invented() -> None:
    geometry = assemble([(n, replace(a, pixel_spacing_mm=None)) for n, a in _series(0, 1)])
    assert geometry.spacing_mm == (1.0, None, None)


def test_an_empty_series() -> None:
    assert _code([]) == RejectionCode.NO_GEOMETRY
