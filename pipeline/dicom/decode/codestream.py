"""Size, precision and scan headers that a compressed frame declares, read before any decoder sees it.

A header of 16 x 16 pixels around a codestream of 60 000 x 60 000 is the classic decompression bomb: decoders allocate
memory for the size in the codestream, not for the size in the header.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pydicom.uid import UID, JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes

_SIZ = b"\xff\x4f\xff\x51"  # JPEG 2000: start of codestream, then image and tile size (ISO/IEC 15444-1 A.5.1)
_END = b"\xff\xd9"  # end of image (JPEG, JPEG-LS) and end of codestream (JPEG 2000) alike
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOFn (ISO/IEC 10918-1 B.1.1.3), SOF55 of JPEG-LS
_SCAN, _LOSSLESS, _JPEG_LS, _COD = 0xDA, 0xC3, 0xF7, 0x52
_SEQUENTIAL_DCT = (0xC0, 0xC1)  # baseline and extended: every scan has all coefficients
_WHOLE_BLOCK = b"\x00\x3f\x00"  # Ss = 0, Se = 63, Ah = Al = 0: what a sequential scan must say (B.2.3)
_LONE = {0x01, *range(0xD0, 0xD9)}  # markers without a segment: TEM, RSTn, SOI (ISO/IEC 10918-1 B.1.1.3)


class FrameSize(NamedTuple):
    """Size of a codestream in pixels, and samples per pixel."""

    rows: int
    columns: int
    samples: int


class Coding(NamedTuple):
    """How a codestream holds its samples: bits of each, and whether decoding gives back exactly what was coded."""

    precision: int = 0
    lossless: bool = False


def frame_size(frame: bytes, syntax: UID) -> FrameSize | None:
    """Return the size that the codestream declares, or None where it declares none (RLE, or no such marker)."""
    if syntax in JPEG2000TransferSyntaxes:
        return _jpeg2000_size(frame)
    if syntax in JPEGTransferSyntaxes or syntax in JPEGLSTransferSyntaxes:
        return _jpeg_size(frame)
    return None


def coding_of(frame: bytes, syntax: UID) -> Coding:
    """Return the coding that the codestream declares; `Coding()` where it declares none."""
    if syntax in JPEG2000TransferSyntaxes:
        return _jpeg2000_coding(frame)
    if syntax in JPEGTransferSyntaxes or syntax in JPEGLSTransferSyntaxes:
        return _jpeg_coding(frame)
    return Coding()


def is_signed(frame: bytes, syntax: UID) -> bool | None:
    """Whether the codestream declares signed samples; None where it declares no sign (all but JPEG 2000)."""
    start = frame.find(_SIZ) if syntax in JPEG2000TransferSyntaxes else -1
    return None if start < 0 or len(frame) < start + 43 else frame[start + 42] >= 0x80  # Ssiz, bit 7 (A.5.1)


def is_complete(frame: bytes, syntax: UID) -> bool:
    """Whether the end marker comes before the padding. Decoders fill a cut frame with grey."""
    has_marker = (
        syntax in JPEG2000TransferSyntaxes or syntax in JPEGTransferSyntaxes or syntax in JPEGLSTransferSyntaxes
    )
    # Encoders and archives append padding after the marker: zeros in any number, up to whole blocks, or a few others.
    return not has_marker or _END in frame.rstrip(b"\0")[-64:]


def with_whole_scans(frame: bytes) -> bytes:
    """Return a sequential DCT frame whose scan headers cover the whole block (`vendors.SOURCES[SCAN_HEADER]`).

    A frame that is right already, or of another process, is returned as it is.
    """
    segments = list(_segments(frame))
    process = next((marker for marker, _, _ in segments if marker in _FRAME_MARKERS), None)
    if process not in _SEQUENTIAL_DCT:
        return frame
    mended = bytearray(frame)
    for _, _, end in (segment for segment in segments if segment[0] == _SCAN):
        mended[end - 3 : end] = _WHOLE_BLOCK
    return frame if mended == frame else bytes(mended)


def _jpeg2000_size(frame: bytes) -> FrameSize | None:
    start = frame.find(_SIZ)
    fields = frame[start + 8 : start + 42]
    if start < 0 or len(fields) < 34:
        return None
    # Xsiz, Ysiz are the far corner of the reference grid, XOsiz, YOsiz the image offset (ISO/IEC 15444-1 A.5.1).
    right, bottom, left, top = (int.from_bytes(fields[at : at + 4], "big") for at in (0, 4, 8, 12))
    return FrameSize(bottom - top, right - left, int.from_bytes(fields[32:34], "big"))


def _jpeg2000_coding(frame: bytes) -> Coding:
    start = frame.find(_SIZ)
    if start < 0 or len(frame) < start + 43:
        return Coding()
    precision = (frame[start + 42] & 0x7F) + 1  # Ssiz of the first component (A.5.1)
    for marker, begin, end in _segments(frame, start):
        if marker == _COD and end - begin >= 12:
            return Coding(precision, frame[begin + 11] == 1)  # 1 is the reversible 5-3 filter (A.6.1, table A.20)
    return Coding(precision)


def _jpeg_size(frame: bytes) -> FrameSize | None:
    for marker, begin, end in _segments(frame):
        if marker in _FRAME_MARKERS and end - begin >= 8:
            rows, columns = (int.from_bytes(frame[begin + i : begin + i + 2], "big") for i in (3, 5))
            return FrameSize(rows, columns, frame[begin + 7])
    return None


def _jpeg_coding(frame: bytes) -> Coding:
    process = precision = 0
    for marker, begin, end in _segments(frame):
        if marker in _FRAME_MARKERS and end - begin >= 3:
            process, precision = marker, frame[begin + 2]
        if marker == _SCAN:
            near = frame[end - 3] if process == _JPEG_LS else 0  # NEAR of JPEG-LS (ISO/IEC 14495-1 C.2.3)
            return Coding(precision, process in (_LOSSLESS, _JPEG_LS) and near == 0)
    return Coding(precision)


def _segments(frame: bytes, at: int = 0) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, begin of its length field, end of its segment), scan after scan, as far as the stream is valid."""
    while at + 1 < len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker in _LONE or marker in (0xFF, 0x4F):  # 0xFF is fill before a marker, 4F the start of JPEG 2000
            at += 1 if marker == 0xFF else 2
            continue
        end = at + 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker == 0xD9 or end > len(frame) or end < at + 4:
            return
        yield marker, at + 2, end
        at = _after_entropy(frame, end) if marker == _SCAN else end


def _after_entropy(frame: bytes, at: int) -> int:
    """Return the place of the next marker that is neither stuffing nor a restart."""
    while (at := frame.find(0xFF, at)) >= 0 and at + 1 < len(frame):
        # In JPEG-LS a byte after FF is below 80, in JPEG it is 00 unless it is a marker.
        if frame[at + 1] >= 0x80 and not 0xD0 <= frame[at + 1] <= 0xD7 and frame[at + 1] != 0xFF:
            return at
        at += 1
    return len(frame)
