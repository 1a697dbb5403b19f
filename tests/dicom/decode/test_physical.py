"""Stored values to physical ones, with numbers worked out by hand from PS3.3 C.11."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dicom.decode.attributes import InstanceAttributes, LookupTable
from pipeline.dicom.decode.physical import for_display, to_physical
from pipeline.dicom.decode.voi import apply_window

CT = InstanceAttributes(modality="CT", rescale=((1.0, -1024.0),), bits_stored=12)
CR = InstanceAttributes(modality="CR", bits_stored=12)
STORED = np.array([[[0, 1024, 2048, 4095]]], dtype=np.uint16)
WINDOWS = st.lists(st.tuples(st.floats(-5000, 5000), st.floats(0.1, 5000)), min_size=1, max_size=3).map(tuple)


def test_rescale_gives_hounsfield_units() -> None:
    physical = to_physical(STORED, CT)
    assert physical.pixels.tolist() == [[[-1024.0, 0.0, 1024.0, 3071.0]]]
    assert physical.pixels.dtype == np.float32
    assert physical.valid is None
    assert [step.name for step in physical.history] == ["rescale"]


def test_rescale_of_each_frame() -> None:
    """PET: slope 2 in the first frame, 3 with intercept 1 in the second."""
    stored = np.full((2, 1, 1), 10, dtype=np.uint16)
    attributes = InstanceAttributes(modality="PT", rescale=((2.0, 0.0), (3.0, 1.0)))
    assert to_physical(stored, attributes).pixels.ravel().tolist() == [20.0, 31.0]


def test_large_integers_are_scaled_before_they_are_rounded() -> None:
    """2**24 + 1 is not a float32, but minus 2**24 it is 1: the sum is computed in float64."""
    stored = np.array([[[2**24 + 1]]], dtype=np.uint32)
    attributes = InstanceAttributes(modality="RTDOSE", bits_stored=32, rescale=((1.0, -float(2**24)),))
    assert to_physical(stored, attributes).pixels.item() == 1.0


def test_modality_lut_takes_the_ends_outside() -> None:
    """First mapped 10, entries 100, 200, 300: 9 -> 100, 10 -> 100, 12 -> 300, 99 -> 300; rescale is not used then."""
    table = LookupTable.pack(10, 16, np.array([100, 200, 300]))
    attributes = replace(CT, modality_lut=table)
    physical = to_physical(np.array([[[9, 10, 12, 99]]], dtype=np.uint16), attributes)
    assert physical.pixels.tolist() == [[[100.0, 100.0, 300.0, 300.0]]]


@pytest.mark.parametrize(("value", "limit"), [(2048, 4095), (4095, 2048)])
def test_padding_is_a_range_of_stored_values_in_either_order(value: int, limit: int) -> None:
    """Padding is compared with stored values, not with HU: of 0, 1024, 2048, 4095 the last two are padding."""
    physical = to_physical(STORED, replace(CT, padding_value=value, padding_range_limit=limit))
    assert physical.valid.tolist() == [[[True, True, False, False]]]
    assert physical.history[0].name == "padding"


@given(WINDOWS, st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]), st.sampled_from(["CT", "MR", "PT", "NM", "US"]))
def test_a_window_never_moves_a_value(windows: tuple, function: str, modality: str) -> None:
    """Whatever window a technologist chose, physical values of a cross-section are bit for bit the same."""
    plain = replace(CT, modality=modality)
    table = LookupTable.pack(0, 8, np.arange(256))
    displayed = replace(
        plain, windows=windows, frame_windows=windows[:1], voi_function=function, voi_luts=(table,),
        presentation_lut_shape="INVERSE", photometric="MONOCHROME1",
    )  # fmt: skip
    one, other = to_physical(STORED, plain), to_physical(STORED, displayed)
    np.testing.assert_array_equal(one.pixels, other.pixels)
    assert one.history == other.history


def test_linear_window_by_hand() -> None:
    """Centre 2048, width 4096 (PS3.3 C.11.2.1.2.1): (x - 2047.5) / 4095 + 0.5, so 0 -> 0 and 4095 -> 1."""
    windowed = apply_window(np.array([-1.0, 0.0, 2048.0, 4095.0, 5000.0]), 2048, 4096)
    np.testing.assert_allclose(windowed, [0.0, 0.0, 0.5 / 4095 + 0.5, 1.0, 1.0], atol=1e-7)


def test_linear_window_of_width_one_is_a_step() -> None:
    assert apply_window(np.array([99.4, 99.5, 99.6]), 100, 1).tolist() == [0.0, 0.0, 1.0]


def test_linear_exact_and_sigmoid_by_hand() -> None:
    """Centre 100, width 50: EXACT 75 -> 0, 100 -> 0.5, 125 -> 1; SIGMOID at 125: 1 / (1 + exp(-2)) = 0.880797."""
    values = np.array([75.0, 100.0, 125.0])
    np.testing.assert_allclose(apply_window(values, 100, 50, "LINEAR_EXACT"), [0.0, 0.5, 1.0], atol=1e-7)
    np.testing.assert_allclose(apply_window(values, 100, 50, "SIGMOID"), [0.119203, 0.5, 0.880797], atol=1e-6)


def test_projection_goes_through_window_and_inversion() -> None:
    """CR, MONOCHROME1, window 2048/4096: 0 is shown 0, then inverted to 1; each is a step of the history."""
    attributes = replace(CR, photometric="MONOCHROME1", presentation_lut_shape="INVERSE", windows=((2048.0, 4096.0),))
    physical = to_physical(STORED, attributes)
    np.testing.assert_allclose(physical.pixels.ravel()[[0, 3]], [1.0, 0.0], atol=1e-7)
    assert [step.name for step in physical.history] == ["voi-window", "invert"]


def test_projection_without_window_is_inverted_within_bits_stored() -> None:
    """12 bits: x becomes 4095 - x, whatever the image contains."""
    physical = to_physical(STORED, replace(CR, photometric="MONOCHROME1"))
    assert physical.pixels.tolist() == [[[4095.0, 3071.0, 2047.0, 0.0]]]


def test_inversion_follows_the_rescale() -> None:
    """Slope 0.5, intercept 100: outputs from 100 to 2147.5; stored 0 gives 100, inverted 2147.5."""
    physical = to_physical(STORED, replace(CR, photometric="MONOCHROME1", rescale=((0.5, 100.0),)))
    assert physical.pixels.ravel()[[0, 3]].tolist() == [2147.5, 100.0]


def test_voi_lut_goes_before_a_window() -> None:
    table = LookupTable.pack(0, 8, np.arange(255, -1, -1))
    attributes = replace(CR, voi_luts=(table,), windows=((10.0, 10.0),), bits_stored=8)
    physical = to_physical(np.array([[[0, 255]]], dtype=np.uint8), attributes)
    assert physical.pixels.tolist() == [[[1.0, 0.0]]]
    assert [step.name for step in physical.history] == ["voi-lut"]


def test_display_of_a_ct_uses_the_window() -> None:
    """Brain window 40/80: 0 HU is (0 - 39.5) / 79 + 0.5 = 0 -> 0; 1024 HU -> 255."""
    attributes = replace(CT, windows=((40.0, 80.0),))
    picture = for_display(to_physical(STORED, attributes), attributes)
    assert picture.tolist() == [[[0, 0, 255, 255]]]
    assert picture.dtype == np.uint8


def test_display_blackens_padding_and_inverts_monochrome1() -> None:
    attributes = replace(CT, windows=((40.0, 80.0),), photometric="MONOCHROME1", padding_value=0)
    assert for_display(to_physical(STORED, attributes), attributes).tolist() == [[[0, 255, 0, 0]]]


def test_display_without_a_window_takes_the_robust_range() -> None:
    stored = np.arange(201, dtype=np.uint16).reshape(1, 1, 201)
    picture = for_display(to_physical(stored, InstanceAttributes(modality="MR")), InstanceAttributes(modality="MR"))
    assert (picture.min(), picture.max()) == (0, 255)
    assert picture.ravel()[100] == pytest.approx(128, abs=1)
    assert (
        for_display(to_physical(np.zeros((1, 2, 2), np.uint8), InstanceAttributes()), InstanceAttributes()).max() == 0
    )
