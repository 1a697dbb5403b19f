"""Stored values computed by hand: bits, signs, padding, colours, frames."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydicom.dataset import Dataset
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.luminance import choose_luminance, weigh
from pipeline.dicom.decode.read import DecodedInstance, read_instance
from pipeline.errors import Rejected, RejectionCode

GREY = np.arange(12, dtype=np.uint16).reshape(3, 4)


@pytest.fixture
def roundtrip(make_dataset: Callable, write_dataset: Callable) -> Callable[..., DecodedInstance]:
    """Write pixels with attributes and read them back."""

    def go(pixels: np.ndarray, **attributes: object) -> DecodedInstance:
        return read_instance(write_dataset(make_dataset(pixels, **attributes)), DecodeLimits())

    return go


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32])
def test_integers_come_back_as_they_are(dtype: type, roundtrip: Callable) -> None:
    info = np.iinfo(dtype)
    pixels = np.array([[info.min, info.max], [0, 1]], dtype=dtype)
    instance = roundtrip(pixels)
    assert instance.stored.dtype == dtype
    np.testing.assert_array_equal(instance.stored, pixels[None])


def test_bits_above_bits_stored_are_dropped(roundtrip: Callable) -> None:
    """12 bits stored in 16, an old overlay in bit 12: 0x1005 means 5 (PS3.5 8.1.1)."""
    pixels = np.array([[0x1005, 0x0FFF]], dtype=np.uint16)
    instance = roundtrip(pixels, BitsStored=12, HighBit=11)
    assert instance.stored.tolist() == [[[5, 4095]]]


def test_signed_bits_are_extended(roundtrip: Callable) -> None:
    """12 bits, signed: 0x0FFF is -1, 0x0800 is -2048, 0x07FF is 2047."""
    pixels = np.array([[0x0FFF, 0x0800, 0x07FF]], dtype=np.int16)
    instance = roundtrip(pixels, BitsStored=12, HighBit=11)
    assert instance.stored.tolist() == [[[-1, -2048, 2047]]]


def test_a_high_bit_at_the_top_is_shifted_down(roundtrip: Callable) -> None:
    """12 bits stored, high bit 15: the value is in bits 15 to 4, so 0x1230 means 0x123."""
    instance = roundtrip(np.array([[0x1230, 0xFFF0]], dtype=np.uint16), BitsStored=12, HighBit=15)
    assert instance.stored.tolist() == [[[0x123, 0xFFF]]]


def test_padding_outside_bits_stored_survives(roundtrip: Callable) -> None:
    """63536 (-2000 as unsigned) in a 12-bit CT: it must remain so that it can be recognised; others are masked."""
    pixels = np.array([[63536, 0x1005, 7]], dtype=np.uint16)
    instance = roundtrip(pixels, BitsStored=12, HighBit=11, PixelPaddingValue=63536)
    assert instance.stored.tolist() == [[[63536, 5, 7]]]
    assert instance.attributes.padding_value == 63536


def test_padding_written_with_the_wrong_sign_is_read_as_stored(make_dataset: Callable, write_dataset: Callable) -> None:
    ds = make_dataset(np.array([[-2000, 5]], dtype=np.int16))
    ds.add_new(0x00280120, "US", 63536)
    assert read_instance(write_dataset(ds), DecodeLimits()).attributes.padding_value == -2000


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_native_syntaxes(syntax: str, make_dataset: Callable, write_dataset: Callable) -> None:
    ds = make_dataset(GREY)
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = GREY.astype(">u2").tobytes()
    instance = read_instance(write_dataset(ds, syntax=syntax), DecodeLimits())
    assert instance.attributes.transfer_syntax_uid == syntax
    np.testing.assert_array_equal(instance.stored[0], GREY)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_lossless_syntaxes_give_the_same_instance(syntax: str, make_dataset: Callable, write_dataset: Callable) -> None:
    """Compressed by pydicom, 3 frames, signed: stored values and content equal those of the uncompressed file."""
    pixels = np.random.default_rng(0).integers(-2048, 2048, (3, 64, 70), dtype=np.int16)
    plain = read_instance(write_dataset(make_dataset(pixels)), DecodeLimits())
    ds = make_dataset(pixels)
    ds.compress(syntax, pixels, generate_instance_uid=False)
    packed = read_instance(write_dataset(ds, "packed.dcm", syntax), DecodeLimits())
    np.testing.assert_array_equal(packed.stored, plain.stored)
    assert packed.attributes.content_json() == plain.attributes.content_json()


def test_rgb_becomes_luminance(roundtrip: Callable) -> None:
    """Y = 0.299 R + 0.587 G + 0.114 B: pure red 76.245 -> 76, green 149.685 -> 150, blue 29.07 -> 29, grey stays."""
    pixels = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [77, 77, 77]]], dtype=np.uint8)
    instance = roundtrip(pixels)
    assert instance.stored.tolist() == [[[76, 150, 29, 77]]]
    assert (instance.attributes.photometric, instance.attributes.original_photometric) == ("MONOCHROME2", "RGB")
    assert [step.name for step in instance.history] == ["decode", "luminance"]


@given(hnp.arrays(st.sampled_from([np.uint8, np.uint16, np.uint32]), 5))
def test_grey_stays_exactly_grey(grey: np.ndarray) -> None:
    np.testing.assert_array_equal(weigh(np.stack([grey] * 3, axis=-1)), grey)


def test_ybr_takes_the_luminance_as_stored(roundtrip: Callable) -> None:
    pixels = np.array([[[10, 90, 200], [250, 128, 128]]], dtype=np.uint8)
    assert roundtrip(pixels, PhotometricInterpretation="YBR_FULL").stored.tolist() == [[[10, 250]]]


def test_planes_or_pixels_are_the_same(roundtrip: Callable) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    by_plane = roundtrip(pixels, PlanarConfiguration=1, PixelData=pixels.transpose(2, 0, 1).tobytes())
    np.testing.assert_array_equal(by_plane.stored, roundtrip(pixels).stored)


def test_palette(roundtrip: Callable) -> None:
    """First mapped is 6: 5 takes the first entry, 9 the last; grey entries are preserved exactly."""
    entries = np.array([1000, 2000, 65535], dtype=np.uint16).tobytes()
    palette = {}
    for colour in ("Red", "Green", "Blue"):
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [3, 6, 16]
        palette[f"{colour}PaletteColorLookupTableData"] = entries
    pixels = np.array([[5, 6, 7, 8, 9, 7]], dtype=np.uint8)
    instance = roundtrip(pixels, PhotometricInterpretation="PALETTE COLOR", **palette)
    assert instance.stored.tolist() == [[[1000, 1000, 2000, 65535, 65535, 2000]]]
    assert instance.stored.dtype == np.uint16
    assert instance.attributes.bits_stored == 16


def test_padding_of_a_colour_image_means_nothing(roundtrip: Callable) -> None:
    pixels = np.zeros((2, 2, 3), dtype=np.uint8)
    assert roundtrip(pixels, PixelPaddingValue=0).attributes.padding_value is None


@pytest.mark.parametrize(("keyword", "dtype"), [("FloatPixelData", np.float32), ("DoubleFloatPixelData", np.float64)])
def test_floats(keyword: str, dtype: type, make_dataset: Callable, write_dataset: Callable) -> None:
    values = np.array([[0.5, -1e30], [np.pi, 3.0]], dtype=dtype)
    ds = make_dataset(np.zeros((2, 2), dtype=np.uint16))
    for gone in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(ds, gone)
    ds.BitsAllocated = 8 * values.itemsize
    setattr(ds, keyword, values.tobytes())
    instance = read_instance(write_dataset(ds), DecodeLimits())
    assert instance.stored.dtype == dtype
    np.testing.assert_array_equal(instance.stored[0], values)
    setattr(ds, keyword, np.where(values == 3.0, np.nan, values).tobytes())
    with pytest.raises(Rejected) as caught:
        read_instance(write_dataset(ds), DecodeLimits())
    assert caught.value.code == RejectionCode.NON_FINITE


def test_a_transfer_syntax_without_decoder_is_refused(make_dataset: Callable, write_dataset: Callable) -> None:
    ds = make_dataset(GREY.astype(np.uint8))
    ds.compress(RLELossless, GREY.astype(np.uint8), generate_instance_uid=False)
    with pytest.raises(Rejected) as caught:
        read_instance(write_dataset(ds, syntax=MPEG2MPML), DecodeLimits())
    assert caught.value.code == RejectionCode.UNSUPPORTED_TRANSFER_SYNTAX


def test_a_file_without_meta_information_records_the_assumption(
    make_dataset: Callable, write_dataset: Callable
) -> None:
    path = write_dataset(make_dataset(GREY), syntax=ImplicitVRLittleEndian)
    data = path.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    path.write_bytes(data[start:])
    instance = read_instance(path, DecodeLimits())
    assert [step.name for step in instance.history] == ["assume-transfer-syntax", "decode"]
    np.testing.assert_array_equal(instance.stored[0], GREY)


@pytest.mark.parametrize(("code", "quoted"), [("MUELLER ANNA", "12 characters"), ("HSV", "'HSV'"), ("müller", "6 c")])
def test_a_refusal_quotes_only_a_defined_interpretation(code: str, quoted: str) -> None:
    ds = Dataset()
    ds.PhotometricInterpretation = code
    with pytest.raises(Rejected) as refused:
        choose_luminance(ds, InstanceAttributes(original_photometric=code.upper()), 1)
    assert quoted in refused.value.sentence and "ANNA" not in refused.value.sentence.upper()
