"""Every deviation of `vendors.Assumed`: read to the right values, recorded in the attributes, and with a source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames, get_frame
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLSLossless,
    RLELossless,
)

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.codestream import coding_of, with_whole_scans
from pipeline.dicom.decode.physical import to_physical
from pipeline.dicom.decode.read import read_instance
from pipeline.dicom.decode.vendors import SOURCES, Assumed
from pipeline.errors import Rejected, RejectionCode

Make, Write = Callable[..., Dataset], Callable[..., Path]
LIMITS = DecodeLimits()
RAMP = np.linspace(0, 4095, 32 * 32).reshape(32, 32).astype(np.uint16)
SIGNED = (RAMP.astype(np.int32) - 2048).astype(np.int16)


def test_every_deviation_has_a_source() -> None:
    assert set(SOURCES) == set(Assumed)
    assert all(len(source) > 60 for source in SOURCES.values())


def with_scan(frame: bytes, ends: bytes) -> bytes:
    """The frame with Ss, Se and Ah/Al of its first scan replaced."""
    start = frame.index(b"\xff\xda")
    end = start + 2 + int.from_bytes(frame[start + 2 : start + 4], "big")
    return frame[: end - 3] + ends + frame[end:]


@pytest.mark.parametrize("ends", [b"\x00\x00\x00", b"\x00\x3e\x00", b"\x01\x3f\x10"])
def test_a_sequential_scan_covers_the_block_whatever_its_header_says(
    ends: bytes, real_files: dict[str, Path], tmp_path: Path
) -> None:
    source = real_files["pydicom/JPGExtended.dcm"]
    ds = dcmread(source)
    assert ds.file_meta.TransferSyntaxUID == JPEGExtended12Bit
    ds.PixelData = encapsulate([with_scan(get_frame(ds.PixelData, 0, number_of_frames=1), ends)])
    ds.save_as(tmp_path / "se0.dcm")
    spoiled, plain = read_instance(tmp_path / "se0.dcm", LIMITS), read_instance(source, LIMITS)
    np.testing.assert_array_equal(spoiled.stored, plain.stored)
    assert spoiled.attributes.assumed == ("jpeg-scan-header",)
    assert plain.attributes.assumed == ()
    assert spoiled.history[0].params == {"deviations": ["jpeg-scan-header"]}


def test_scans_of_other_processes_stay_as_they_are(real_files: dict[str, Path]) -> None:
    """A lossless scan has a predictor where a DCT scan has Ss."""
    if "pydicom-data/JPEG-LL.dcm" not in real_files:
        pytest.skip("the package pydicom-data is not installed")
    ds = dcmread(real_files["pydicom-data/JPEG-LL.dcm"])
    frame = get_frame(ds.PixelData, 0, number_of_frames=1)
    assert with_whole_scans(frame) is frame
    assert coding_of(frame, ds.file_meta.TransferSyntaxUID) == (16, True)


def with_overlay(make: Make, syntax: str, values: np.ndarray, padded: int = 0) -> tuple[Dataset, np.ndarray]:
    """A stream of 16 bits around values of 12, with bits of an overlay above them; `padded` rows hold 63536."""
    bits = 12
    words = values.view(np.uint16) & np.uint16(2**bits - 1) | np.uint16(0xA000)
    words[:padded] = 63536
    ds = make(words)
    ds.compress(syntax, words, generate_instance_uid=False)
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, int(values.dtype.kind == "i")
    return ds, words


@pytest.mark.parametrize("values", [RAMP, SIGNED], ids=["unsigned", "signed"])
@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
def test_bits_above_bits_stored_in_a_lossless_stream_are_dropped(
    syntax: str, values: np.ndarray, make_dataset: Make, write_dataset: Write
) -> None:
    ds, _ = with_overlay(make_dataset, syntax, values)
    instance = read_instance(write_dataset(ds, syntax=syntax), LIMITS)
    np.testing.assert_array_equal(instance.stored[0], values)
    assert instance.stored.dtype == values.dtype
    expected = set() if syntax == RLELossless else {"unused-bits-in-stream"}
    if syntax == JPEG2000Lossless and values is SIGNED:
        expected.add("sign-of-stream")  # the words were coded as unsigned ones
    assert set(instance.attributes.assumed) == expected


@pytest.mark.parametrize("coded", [RAMP, SIGNED], ids=["unsigned-stream", "signed-stream"])
@pytest.mark.parametrize("signed", [0, 1])
def test_the_header_decides_about_the_sign_of_a_stream(
    coded: np.ndarray, signed: int, make_dataset: Make, write_dataset: Write
) -> None:
    """The same twelve bits, read with the header's sign; where the stream says otherwise, that is recorded."""
    ds = make_dataset(coded)
    ds.BitsStored, ds.HighBit = 12, 11
    ds.compress(JPEG2000Lossless, coded, generate_instance_uid=False)
    ds.PixelRepresentation = signed
    instance = read_instance(write_dataset(ds, syntax=JPEG2000Lossless), LIMITS)
    bits = coded.astype(np.int32) & 0xFFF
    np.testing.assert_array_equal(instance.stored[0], bits - 0x1000 * (bits >= 0x800) if signed else bits)
    agrees = (coded.dtype.kind == "i") == bool(signed)
    assert instance.attributes.assumed == (() if agrees else ("sign-of-stream",))


def test_padding_above_bits_stored_in_a_stream_survives(make_dataset: Make, write_dataset: Write) -> None:
    ds, _ = with_overlay(make_dataset, JPEG2000Lossless, RAMP, padded=1)
    ds.PixelPaddingValue = 63536
    stored = read_instance(write_dataset(ds, syntax=JPEG2000Lossless), LIMITS).stored[0]
    assert set(stored[0]) == {63536}
    np.testing.assert_array_equal(stored[1:], RAMP[1:])


def test_bits_of_jpeg_lossless(real_files: dict[str, Path], tmp_path: Path) -> None:
    """The low ten bits of a real file of 16, sign-extended: process 14 has no encoder here."""
    if "pydicom-data/JPEG-LL.dcm" not in real_files:
        pytest.skip("the package pydicom-data is not installed")
    source = real_files["pydicom-data/JPEG-LL.dcm"]
    whole = read_instance(source, LIMITS).stored
    ds = dcmread(source)
    ds.BitsStored, ds.HighBit = 10, 9
    ds.save_as(tmp_path / "ten.dcm")
    low = (whole.astype(np.int32) & 1023) ^ 512
    np.testing.assert_array_equal(read_instance(tmp_path / "ten.dcm", LIMITS).stored, low - 512)


def radiograph(make: Make, first: int, entries: np.ndarray, bits: int = 12, **more: object) -> Dataset:
    ds = make(RAMP, Modality="DX", BitsStored=12, HighBit=11, **more)
    item = Dataset()
    item.add_new(0x00283002, "SS" if first < 0 else "US", [len(entries) % 65536, first, bits])
    item.add_new(0x00283006, "OW", entries.astype("<u2").tobytes())
    ds.VOILUTSequence = [item]
    return ds


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(
    ("intercept", "first", "meant"),
    [
        (-2048, -2048, -2048),
        (-2048, 63488, -2048),
        (0, 0, 0),
        (0, -5, -5),
        (40000, 40000, 40000),
        (40000, -25536, 40000),
    ],
)
def test_the_sign_of_a_voi_lut_follows_the_modality_output(
    intercept: int, first: int, meant: int, syntax: str, make_dataset: Make, write_dataset: Write
) -> None:
    """A table that maps each possible value to itself gives a ramp from black to white (PS3.3 C.11.2.1.1)."""
    entries = np.clip(np.arange(4096) + meant - intercept, 0, 4095)
    ds = radiograph(make_dataset, first, entries, RescaleSlope=1, RescaleIntercept=intercept)
    instance = read_instance(write_dataset(ds, syntax=syntax), LIMITS)
    physical = to_physical(instance.stored, instance.attributes).pixels[0]
    np.testing.assert_allclose(physical, RAMP / 4095, atol=6 / 4095)
    assert instance.attributes.voi_luts[0].first == meant
    written = first if syntax == ExplicitVRLittleEndian else first % 65536
    assert ("voi-lut-sign" in instance.attributes.assumed) == (written != meant)


@pytest.mark.parametrize(("declared", "used"), [(16, 12), (16, 10), (12, 10), (10, 12), (12, 12)])
def test_a_voi_lut_has_the_bits_that_its_entries_use(
    declared: int, used: int, make_dataset: Make, write_dataset: Write
) -> None:
    entries = np.arange(4096) * (2**used - 1) // 4095
    instance = read_instance(write_dataset(radiograph(make_dataset, 0, entries, declared)), LIMITS)
    physical = to_physical(instance.stored, instance.attributes).pixels[0]
    np.testing.assert_allclose(physical, RAMP / 4095, atol=1 / (2**used - 1))
    assert ("voi-lut-bits" in instance.attributes.assumed) == (declared != used)


def in_fragments(frames: list[bytes], table: bool) -> bytes:
    """Each frame in three fragments, with or without a basic offset table."""
    items, offsets, at = b"", b"", 0
    for frame in frames:
        offsets += at.to_bytes(4, "little")
        cut = len(frame) // 6 * 2
        for part in (frame[:cut], frame[cut : 2 * cut], frame[2 * cut :]):
            items += b"\xfe\xff\x00\xe0" + len(part).to_bytes(4, "little") + part
            at += 8 + len(part)
    offsets = offsets if table else b""
    return b"\xfe\xff\x00\xe0" + len(offsets).to_bytes(4, "little") + offsets + items


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_rle_frames_in_several_fragments(count: int, table: bool, make_dataset: Make, write_dataset: Write) -> None:
    pixels = RAMP if count == 1 else np.stack([RAMP // (1 + i) for i in range(count)])
    ds = make_dataset(pixels)
    ds.compress(RLELossless, pixels, generate_instance_uid=False)
    ds.PixelData = in_fragments(list(generate_frames(ds.PixelData, number_of_frames=count)), table)
    instance = read_instance(write_dataset(ds, syntax=RLELossless), LIMITS)
    np.testing.assert_array_equal(instance.stored, pixels.reshape(count, 32, 32))
    assert instance.attributes.assumed == ("rle-fragments",)


@pytest.mark.parametrize("at", [0, 1])
def test_an_empty_fragment_of_an_rle_frame(at: int, make_dataset: Make, write_dataset: Write) -> None:
    ds = make_dataset(RAMP)
    ds.compress(RLELossless, RAMP, generate_instance_uid=False)
    fragments = [next(iter(generate_frames(ds.PixelData, number_of_frames=1)))]
    fragments.insert(at, b"")
    items = (b"\xfe\xff\x00\xe0" + len(part).to_bytes(4, "little") + part for part in (b"", *fragments))
    ds.PixelData = b"".join(items)
    instance = read_instance(write_dataset(ds, syntax=RLELossless), LIMITS)
    np.testing.assert_array_equal(instance.stored[0], RAMP)
    assert instance.attributes.assumed == ("rle-fragments",)


@pytest.mark.parametrize("zeros", [62, 64, 1000])
@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_zeros_of_any_number_may_follow_the_end_marker(
    syntax: str, zeros: int, make_dataset: Make, write_dataset: Write
) -> None:
    ds = make_dataset(RAMP)
    ds.compress(syntax, RAMP, generate_instance_uid=False)
    frame = next(iter(generate_frames(ds.PixelData, number_of_frames=1))).rstrip(b"\0")
    ds.PixelData = encapsulate([frame + b"\0" * zeros])
    instance = read_instance(write_dataset(ds, syntax=syntax), LIMITS)
    np.testing.assert_array_equal(instance.stored[0], RAMP)
    ds.PixelData = encapsulate([frame[:-2] + b"\0" * zeros])
    with pytest.raises(Rejected):
        read_instance(write_dataset(ds, syntax=syntax), LIMITS)


@pytest.mark.parametrize("tail", [b"", b"\xfe\xff\xdd", b"\0" * 6, b"\xfc\xff\xfc\xffOB\0\0\x02\0\0\0\0\0"])
@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_a_stream_without_its_final_delimiter(
    syntax: str, tail: bytes, make_dataset: Make, write_dataset: Write
) -> None:
    ds = make_dataset(RAMP)
    ds.compress(syntax, RAMP, generate_instance_uid=False)
    path = write_dataset(ds, syntax=syntax)
    whole = path.read_bytes()
    path.write_bytes(whole[:-8] + tail)
    instance = read_instance(path, LIMITS)
    np.testing.assert_array_equal(instance.stored[0], RAMP)
    assert instance.attributes.assumed == ("missing-final-delimiter",)
    path.write_bytes(whole[:-60])
    with pytest.raises(Rejected) as caught:
        read_instance(path, LIMITS)
    assert caught.value.code == RejectionCode.TRUNCATED_PIXELS


def test_equal_content_has_equal_hashes_however_it_was_coded(make_dataset: Make, write_dataset: Write) -> None:
    ds, words = with_overlay(make_dataset, JPEG2000Lossless, RAMP)
    plain = make_dataset(words, BitsStored=12, HighBit=11)
    coded = read_instance(write_dataset(ds, syntax=JPEG2000Lossless), LIMITS).attributes
    assert coded.content_json() == read_instance(write_dataset(plain), LIMITS).attributes.content_json()


@pytest.mark.parametrize(
    ("keyword", "vr", "text"),
    [
        ("InstanceNumber", "IS", b"abc "),
        ("InstanceNumber", "IS", b"7.5 "),
        ("InstanceNumber", "IS", b"9e19"),
        ("SliceThickness", "DS", b"thin"),
        ("SpacingBetweenSlices", "DS", b"2,50"),
        ("GantryDetectorTilt", "DS", b"none"),
    ],
)
def test_a_malformed_number_that_a_placed_image_can_do_without_is_ignored(
    keyword: str, vr: str, text: bytes, make_dataset: Make, write_dataset: Write
) -> None:
    place = {"ImagePositionPatient": [0, 0, 5], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}

    def written(**more: object) -> Path:
        path = write_dataset(make_dataset(RAMP, **{keyword: "1111"}, **more))
        path.write_bytes(path.read_bytes().replace(vr.encode() + b"\x04\x001111", vr.encode() + b"\x04\x00" + text))
        return path

    attributes = read_instance(written(**place), LIMITS).attributes
    assert attributes.assumed == (f"ignored:{keyword}",)
    assert attributes.positions == ((0.0, 0.0, 5.0),) and attributes.instance_number in (None, 1)
    if keyword == "InstanceNumber":  # nothing else orders an image without a position
        with pytest.raises(Rejected) as caught:
            read_instance(written(), LIMITS)
        assert caught.value.code == RejectionCode.CORRUPT_HEADER


@pytest.mark.parametrize(("kind", "dtype"), [("Float", np.float32), ("DoubleFloat", np.float64)])
@pytest.mark.parametrize("value", [-9999.0, float("nan"), float(np.float32(-3.4e38))])
def test_float_padding_is_not_tissue(
    value: float, kind: str, dtype: type, make_dataset: Make, write_dataset: Write
) -> None:
    pixels = np.array([[value, 0.25], [-1.0, 3.0]], dtype=dtype)
    ds = make_dataset(np.zeros((2, 2), np.uint16))
    for gone in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(ds, gone)
    ds.Modality, ds.BitsAllocated = "MR", 8 * pixels.itemsize
    setattr(ds, f"{kind}PixelData", pixels.tobytes())
    setattr(ds, f"{kind}PixelPaddingValue", value)
    instance = read_instance(write_dataset(ds), LIMITS)
    physical = to_physical(instance.stored, instance.attributes)
    assert physical.valid.tolist() == [[[False, True], [True, True]]]
    assert np.isfinite(physical.pixels).all()
    setattr(ds, f"{kind}PixelPaddingRangeLimit", 0.0)
    if value == value:
        limited = read_instance(write_dataset(ds), LIMITS)
        assert to_physical(limited.stored, limited.attributes).valid.tolist() == [[[False, True], [False, True]]]
