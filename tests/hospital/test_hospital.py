"""Files as hospitals send them: the same scan in every disguise gives the same pixels, others a code; no name leaks.

Every case is one phantom study of three slices, changed in one way, with a patient and a study of its own. All go in at
once. Pixels are content-addressed, so a case that was read correctly has the same pixel objects as the plain study.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmwrite
from pydicom.encaps import generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

PLANTED = "ZYXWVUT"
Case = Callable[[list[Dataset]], list[bytes]]
# (group, element) of implicit and explicit headers in little endian
TRANSFER_SYNTAX, ROWS, PATIENT_ID = b"\x02\x00\x10\x00", b"\x28\x00\x10\x00", b"\x10\x00\x20\x00"


def written(ds: Dataset, **how: bool) -> bytes:
    stream = io.BytesIO()
    if how:
        dcmwrite(stream, ds, enforce_file_format="file_meta" in ds.__dict__, **how)
    else:
        ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def each(change: Callable[[Dataset], bytes | None]) -> Case:
    """A change of one data set; it may return bytes of its own making."""

    def make(datasets: list[Dataset]) -> list[bytes]:
        return [change(ds) or written(ds) for ds in datasets]

    return make


def put(**values: object) -> Case:
    """Set elements; None deletes one."""

    def change(ds: Dataset) -> None:
        for keyword, value in values.items():
            if value is None and keyword in ds:
                delattr(ds, keyword)
            elif value is not None:
                setattr(ds, keyword, value)

    return each(change)


def swap(keyword: str, value: object, old: bytes, new: bytes) -> Case:
    """Set an element to what pydicom lets through, and put what it would not write in its place, byte for byte."""

    def change(ds: Dataset) -> bytes:
        setattr(ds, keyword, value)
        data = written(ds)
        assert old in data and len(old) == len(new), (keyword, old)
        return data.replace(old, new)

    return each(change)


def syntax(uid: str) -> Case:
    def change(ds: Dataset) -> None:
        ds.file_meta.TransferSyntaxUID = uid

    return each(change)


def big_endian(ds: Dataset) -> bytes:
    ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    return written(ds, implicit_vr=False, little_endian=False)


def no_file_meta(ds: Dataset) -> bytes:
    del ds.file_meta
    return written(ds, implicit_vr=True, little_endian=True)


def compressed(uid: str, fragments: int = 1, offsets: tuple[int, ...] | None = None) -> Case:
    """Compress, cut the frame into fragments, and write a Basic Offset Table that may be a lie."""

    def change(ds: Dataset) -> None:
        ds.compress(uid, generate_instance_uid=False)
        if fragments == 1 and offsets is None:
            return
        frame = next(iter(generate_frames(ds.PixelData, number_of_frames=1)))
        size = len(frame) // fragments // 2 * 2
        parts = [frame[i * size : (i + 1) * size if i < fragments - 1 else None] for i in range(fragments)]
        items = [struct.pack(f"<{len(offsets or ())}L", *(offsets or ())), *parts]
        ds.PixelData = b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<L", len(item)) + item for item in items)
        ds["PixelData"].is_undefined_length = True

    return each(change)


def overlay_in_unused_bits(ds: Dataset) -> None:
    """As scanners of the nineties wrote annotations: into the bits above BitsStored."""
    values = np.frombuffer(ds.PixelData, "<u2") & ((1 << ds.BitsStored) - 1)
    noise = np.random.default_rng(1).integers(0, 2, values.size).astype(np.uint16)
    ds.PixelData = (values | noise << ds.BitsStored).astype("<u2").tobytes()
    ds.add_new(0x60000102, "US", ds.BitsStored)


def left_aligned(ds: Dataset) -> None:
    values = np.frombuffer(ds.PixelData, "<u2") << (16 - ds.BitsStored)
    ds.PixelData, ds.HighBit = values.astype("<u2").tobytes(), 15


def private_secrets(ds: Dataset) -> None:
    block = ds.private_block(0x0019, f"{PLANTED} CREATOR", create=True)
    nested = Dataset()
    nested.PatientName = f"{PLANTED}^DEEP"
    block.add_new(1, "LO", PLANTED)
    block.add_new(2, "SQ", Sequence([nested] * 300))
    block.add_new(3, "UN", PLANTED.encode() * 1000)
    for keyword in ("StudyDescription", "ProtocolName", "StationName", "ImageComments", "InstitutionName"):
        setattr(ds, keyword, PLANTED)
    ds.SeriesDescription = f"AX FLAIR {PLANTED}"


def out_of_order(ds: Dataset) -> bytes:
    """Patient ID after the geometry: forbidden, but some devices write it."""
    data = written(ds)
    at, rows = data.index(PATIENT_ID), data.index(ROWS)
    end = at + 8 + int.from_bytes(data[at + 6 : at + 8], "little")
    return data[:at] + data[end:rows] + data[at:end] + data[rows:]


def undefined_length_unknown(ds: Dataset) -> bytes:
    """A private sequence that a PACS stored as UN: undefined length, implicit inside (PS3.5 6.2.2)."""
    item = b"\x10\x00\x10\x00" + struct.pack("<L", 12) + f"{PLANTED}^DEEP".encode()
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + item + b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    data = written(ds)
    at = data.index(ROWS)
    return data[:at] + b"\x21\x00\x01\x10UN\0\0\xff\xff\xff\xff" + item + data[at:]


def says_explicit_and_is_implicit(ds: Dataset) -> bytes:
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    data, was, says = written(ds), b"UI\x12\x001.2.840.10008.1.2\0", b"UI\x14\x001.2.840.10008.1.2.1\0"
    longer = struct.pack("<L", int.from_bytes(data[140:144], "little") + 2)
    return data[:140] + longer + data[144:].replace(TRANSFER_SYNTAX + was, TRANSFER_SYNTAX + says)


SAME_PIXELS: dict[str, Case] = {
    "plain": put(),
    "implicit": syntax(ImplicitVRLittleEndian),
    "deflated": syntax(DeflatedExplicitVRLittleEndian),
    "big endian": each(big_endian),
    "no preamble": each(lambda ds: written(ds)[132:]),
    "no file meta": each(no_file_meta),
    "no group length": each(lambda ds: written(ds)[:132] + written(ds)[144:]),
    "another file's magic": each(lambda ds: b"II*\0" + written(ds)[4:]),
    "syntax padded with a blank": swap("InstanceNumber", 1, b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1 "),
    "syntax says explicit": each(says_explicit_and_is_implicit),
    "rle": compressed(RLELossless),
    "jpeg 2000": compressed(JPEG2000Lossless),
    "jpeg-ls": compressed(JPEGLSLossless),
    "jpeg 2000, four fragments": compressed(JPEG2000Lossless, 4),
    "jpeg 2000, four fragments, a wrong table": compressed(JPEG2000Lossless, 4, (24,)),
    "jpeg-ls, three fragments, a table": compressed(JPEGLSLossless, 3, (0,)),
    "overlay in unused bits": each(overlay_in_unused_bits),
    "left aligned": each(left_aligned),
    "no instance number": put(InstanceNumber=None),
    "instance number as a decimal": swap("InstanceNumber", 7777, b"7777", b"1.00"),
    "no spacing": put(PixelSpacing=None),
    "spacing of zero": put(PixelSpacing=[0, 0]),
    "windows of nonsense": put(WindowCenter=[40, 400], WindowWidth=[0, 4000]),
    "age of nonsense": swap("PatientAge", "052Y", b"052Y", b" 52 "),
    "blank frames": swap("NumberOfFrames", 7, b"IS\x02\x007 ", b"IS\x02\x00  "),
    "private secrets": each(private_secrets),
    "unknown sequence": each(undefined_length_unknown),
    "out of order": each(out_of_order),
    "two patient ids": put(PatientID=[PLANTED + "1", PLANTED + "2"]),
    "a very long id": put(PatientID=PLANTED + "9" * 200),
    "kanji": put(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "unknown character set": swap("SpecificCharacterSet", "ISO_IR 192", b"ISO_IR 192", b"BOGUS_CHAR"),
    "bytes of no character set": swap("PatientName", "PLACEHOLDER12", b"PLACEHOLDER12", b"M\xfc\xff\x81^\xfeZYXWVUT"),
    "bytes after the end": each(lambda ds: written(ds) + b"\0\0"),
}

REFUSED: dict[str, tuple[str, Case]] = {
    "no study": ("missing-identity", put(StudyInstanceUID=None)),
    "a very long uid": ("invalid-uid", put(StudyInstanceUID="1.2." + "9" * 90)),
    "letters in a uid": ("invalid-uid", put(StudyInstanceUID=f"1.2.{PLANTED}.77")),
    "empty series": ("missing-identity", put(SeriesInstanceUID="")),
    "NUL inside the id": ("corrupt-header", swap("PatientID", f"{PLANTED}xA", f"{PLANTED}xA".encode(), b"ZYXWVUT\0A")),
    "high bit below its bits": ("corrupt-header", put(HighBit=3)),
    "high bit above the word": ("corrupt-header", put(HighBit=16)),
    "more bits than allocated": ("corrupt-header", put(BitsStored=17)),
    "packed 12 bits": ("unsupported-pixel-format", put(BitsAllocated=12)),
    "spacing with a comma": ("corrupt-header", swap("PixelSpacing", [2.25, 2.25], b"2.25\\2.25", b"2,25\\2,25")),
    "no rows": ("corrupt-header", put(Rows=0)),
    "too many rows": ("truncated-pixel-data", put(Rows=640)),
    "hsv": ("unsupported-pixel-format", put(PhotometricInterpretation="HSV", SamplesPerPixel=3, Rows=10)),
    "private syntax": (
        "unsupported-transfer-syntax",
        swap("InstanceNumber", 1, b"1.2.840.10008.1.2.1\0", b"1.2.840.113619.5.2\0\0"),
    ),
    "a report": ("not-an-image", put(PixelData=None, Rows=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33")),
    "a document": ("not-an-image", put(PixelData=None, Rows=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1")),
    "html": ("not-dicom", each(lambda ds: b"<html>ZYXWVUT</html>" * 100)),
}

NOT_A_STACK: dict[str, tuple[str, Case]] = {}


def not_a_stack(code: str) -> Callable[[Case], Case]:
    def note(case: Case) -> Case:
        NOT_A_STACK[case.__name__] = (code, case)
        return case

    return note


@not_a_stack("duplicate-slices")
def one_place_twice(datasets: list[Dataset]) -> list[bytes]:
    datasets[2].ImagePositionPatient = datasets[1].ImagePositionPatient
    return [written(ds) for ds in datasets]


@not_a_stack("irregular-slice-spacing")
def uneven_steps(datasets: list[Dataset]) -> list[bytes]:
    *place, height = datasets[2].ImagePositionPatient
    datasets[2].ImagePositionPatient = [*place, float(height) + 13.3]
    return [written(ds) for ds in datasets]


@not_a_stack("mixed-orientation")
def localiser_inside(datasets: list[Dataset]) -> list[bytes]:
    datasets[0].ImageOrientationPatient, datasets[0].ImageType = (
        [0, 1, 0, 0, 0, -1],
        ["ORIGINAL", "PRIMARY", "LOCALIZER"],
    )
    return [written(ds) for ds in datasets]


@not_a_stack("no-geometry")
def nowhere(datasets: list[Dataset]) -> list[bytes]:
    for ds in datasets:
        del ds.ImagePositionPatient
    return [written(ds) for ds in datasets]


@not_a_stack("duplicate-slices")
def enhanced_with_two_times(datasets: list[Dataset]) -> list[bytes]:
    return [written(enhanced(datasets, times=2))]


def enhanced(datasets: list[Dataset], times: int) -> Dataset:
    """One enhanced multi-frame object of all slices, `times` times over (PS3.3 C.7.6.16)."""
    ds, measures, shared = datasets[0], Dataset(), Dataset()
    measures.PixelSpacing = ds.PixelSpacing
    shared.PixelMeasuresSequence = Sequence([measures])
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    ds.PerFrameFunctionalGroupsSequence = Sequence([_groups(one) for _ in range(times) for one in datasets])
    ds.NumberOfFrames, ds.PixelData = len(datasets) * times, b"".join(one.PixelData for one in datasets) * times
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(ds, keyword)
    return ds


def _groups(ds: Dataset) -> Dataset:
    place, plane, groups = Dataset(), Dataset(), Dataset()
    place.ImagePositionPatient, plane.ImageOrientationPatient = ds.ImagePositionPatient, ds.ImageOrientationPatient
    groups.PlanePositionSequence, groups.PlaneOrientationSequence = Sequence([place]), Sequence([plane])
    return groups


@pytest.fixture(scope="module")
def hospital(take_in: Any) -> Any:
    """Every case, ingested together."""
    return take_in(SAME_PIXELS | {name: case for name, (_, case) in (REFUSED | NOT_A_STACK).items()}, PLANTED)


@pytest.mark.parametrize("name", SAME_PIXELS)
def test_the_same_scan_in_every_disguise(hospital: Any, name: str) -> None:
    assert hospital.codes[name] == []
    assert len(hospital.keys[name]) == 3 and hospital.keys[name] == hospital.keys["plain"]
    assert hospital.not_scored[name] == set()


@pytest.mark.parametrize("name", REFUSED)
def test_each_refusal_has_its_own_code(hospital: Any, name: str) -> None:
    assert hospital.keys[name] == []
    assert [code for code, _ in hospital.codes[name]] == [REFUSED[name][0]] * 3
    assert all(sentence.endswith(".") and "Error" not in sentence for _, sentence in hospital.codes[name])


@pytest.mark.parametrize("name", NOT_A_STACK)
def test_series_that_are_not_stacks_are_ingested_and_not_scored(hospital: Any, name: str) -> None:
    assert hospital.codes[name] == [] and hospital.keys[name]
    assert hospital.not_scored[name] == {NOT_A_STACK[name][0]}


def test_an_enhanced_multi_frame_is_a_stack(take_in: Any) -> None:
    outcome = take_in({"enhanced": lambda given: [written(enhanced(given, times=1))]}, PLANTED)
    assert (outcome.codes["enhanced"], outcome.not_scored["enhanced"], outcome.slices) == ([], set(), 3)


def test_no_name_left_the_crosswalk(hospital: Any) -> None:
    for file in hospital.settings.workspace.rglob("*"):
        if file.is_file() and not file.is_relative_to(hospital.settings.key_file.parent):
            content = file.read_bytes()
            assert PLANTED.encode() not in content and b"Yamada" not in content, file.name
