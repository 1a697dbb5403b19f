"""Broken files as they occur at night, each with the code that it must be rejected with."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG2MPML, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from pipeline.dicom.phantom.objects import Visit, datasets, encode
from pipeline.dicom.phantom.patient import make_patient
from pipeline.errors import RejectionCode


def write_broken(folder: Path, seed: int = 0) -> dict[str, RejectionCode]:
    """Write one file for each kind of fault; return file name -> the code that it must be rejected with.

    File names describe the fault. The symbolic link is omitted, from the result too, where the system cannot make one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    expected = {}
    for name, (code, make) in BROKEN.items():
        (folder / name).write_bytes(make(seed))
        expected[name] = code
    link = folder / "link.dcm"
    try:
        link.symlink_to(folder / "empty.dcm")
    except FileExistsError:
        expected[link.name] = RejectionCode.SYMLINK
    except OSError:
        return expected
    return expected | {link.name: RejectionCode.SYMLINK}


def _sound(seed: int, number: int) -> Dataset:
    """Return a readable CT slice to damage; each number is another patient."""
    patient = make_patient(seed * 100 + number, "CT", None, 64)
    visit = Visit(f"BROKEN{number}", "BROKEN^SCAN", date(2024, 6, 1), f"B{number}", "", f"broken/{seed}/{number}")
    return next(datasets(patient, visit))


def _changed(number: int, **values: object) -> Callable[[int], bytes]:
    """Return a maker of files whose attributes are set to `values`, or removed where the value is None."""

    def make(seed: int) -> bytes:
        """Return the bytes of the damaged file for a seed."""
        ds = _sound(seed, number)
        for keyword, value in values.items():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)
        return _bytes(ds)

    return make


def _bytes(ds: Dataset) -> bytes:
    buffer = io.BytesIO()
    ds.save_as(buffer, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def _truncated(seed: int) -> bytes:
    whole = encode(_sound(seed, 1), ExplicitVRLittleEndian)
    return whole[:-3000]


def _nested(seed: int) -> bytes:
    """Return a Referenced Study Sequence of 300 levels, written by hand because writers refuse it (PS3.5 7.5)."""
    sound, depth = encode(_sound(seed, 2), ExplicitVRLittleEndian), 300
    opening = b"\x08\x00\x10\x11SQ\x00\x00\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closing = b"\xfe\xff\x0d\xe0\x00\x00\x00\x00" + b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
    where = sound.index(b"\x10\x00\x10\x00PN")
    return sound[:where] + opening * depth + closing * depth + sound[where:]


def _garbled_stream(seed: int) -> bytes:
    """Return an RLE stream whose header places its segments beyond its end (PS3.5 G.3)."""
    ds = _sound(seed, 3)
    ds.compress(RLELossless, generate_instance_uid=False)
    start = ds.PixelData.index(b"\x02\x00\x00\x00\x40\x00\x00\x00")
    ds.PixelData = ds.PixelData[: start + 4] + b"\xff\xff\xff\x7f" * 2 + ds.PixelData[start + 12 :]
    return _bytes(ds)


def _bomb(seed: int) -> bytes:
    """Return a small JPEG 2000 stream whose header claims 3.6 thousand million pixels."""
    ds = _sound(seed, 7)
    ds.compress(JPEG2000Lossless, generate_instance_uid=False)
    ds.Rows = ds.Columns = 60_000
    return _bytes(ds)


def _video(seed: int) -> bytes:
    """Return an MPEG-2 stream, which none of our decoders reads."""
    ds = _sound(seed, 4)
    ds.PixelData = encapsulate([b"\x00\x00\x01\xb3" + bytes(60)])
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = MPEG2MPML
    return _bytes(ds)


def _climbing_archive(seed: int) -> bytes:
    """Return a zip with a member whose name leads out of the target folder."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        stamp = zipfile.ZipInfo("../../escaped.dcm", date_time=(2024, 6, 1, 0, 0, 0))
        archive.writestr(stamp, encode(_sound(seed, 5), ExplicitVRLittleEndian))
    return buffer.getvalue()


BROKEN: dict[str, tuple[RejectionCode, Callable[[int], bytes]]] = {
    "empty.dcm": (RejectionCode.EMPTY_FILE, lambda seed: b""),
    "notes.txt": (RejectionCode.NOT_DICOM, lambda seed: b"Scans of last night, see the other folder.\n" * 20),
    "half-orientation.dcm": (RejectionCode.CORRUPT_HEADER, _changed(11, ImageOrientationPatient=[1, 0, 0])),
    "truncated.dcm": (RejectionCode.TRUNCATED_PIXELS, _truncated),
    "frames.dcm": (RejectionCode.FRAME_COUNT, _changed(6, NumberOfFrames=999_999)),
    "bomb.dcm": (RejectionCode.TOO_MANY_PIXELS, _bomb),
    "nested.dcm": (RejectionCode.NESTED_TOO_DEEP, _nested),
    "no-uid.dcm": (RejectionCode.MISSING_IDENTITY, _changed(8, SOPInstanceUID=None)),
    "no-pixels.dcm": (RejectionCode.NO_PIXEL_DATA, _changed(9, PixelData=None)),
    "no-bits.dcm": (RejectionCode.MISSING_ATTRIBUTE, _changed(10, BitsAllocated=None)),
    "garbled.dcm": (RejectionCode.DECODE_FAILED, _garbled_stream),
    "video.dcm": (RejectionCode.UNSUPPORTED_TRANSFER_SYNTAX, _video),
    "climbing.zip": (RejectionCode.ARCHIVE_PATH_TRAVERSAL, _climbing_archive),
}
