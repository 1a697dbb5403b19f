"""The size that a compressed frame declares, read before any decoder allocates memory for it.

A header of 16 x 16 pixels around a codestream of 60 000 x 60 000 is the classic decompression bomb: decoders allocate
memory for the size in the codestream, not for the size in the header.
"""

from __future__ import annotations

from typing import NamedTuple

from pydicom.uid import UID, JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes

_SIZ = b"\xff\x4f\xff\x51"  # JPEG 2000: start of codestream, then image and tile size (ISO/IEC 15444-1 A.5.1)
_END = b"\xff\xd9"  # end of image (JPEG, JPEG-LS) and end of codestream (JPEG 2000) alike
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOFn (ISO/IEC 10918-1 B.1.1.3), SOF55 of JPEG-LS


class FrameSize(NamedTuple):
    """Size of a codestream in pixels, and samples per pixel."""

    rows: int
    columns: int
    samples: int


def frame_size(frame: bytes, syntax: UID) -> FrameSize | None:
    """Return the size that the codestream declares, or None where it declares none (RLE, or no such marker)."""
    if syntax in JPEG2000TransferSyntaxes:
        return _jpeg2000_size(frame)
    if syntax in JPEGTransferSyntaxes or syntax in JPEGLSTransferSyntaxes:
        return _jpeg_size(frame)
    return None


def is_complete(frame: bytes, syntax: UID) -> bool:
    """Whether the end marker comes before the padding. Decoders fill a cut frame with grey."""
    has_marker = (
        syntax in JPEG2000TransferSyntaxes or syntax in JPEGTransferSyntaxes or syntax in JPEGLSTransferSyntaxes
    )
    return not has_marker or _END in frame[-64:]  # encoders and archives append padding after the marker


def _jpeg2000_size(frame: bytes) -> FrameSize | None:
    start = frame.find(_SIZ)
    fields = frame[start + 8 : start + 42]
    if start < 0 or len(fields) < 34:
        return None
    # Xsiz, Ysiz are the far corner of the reference grid, XOsiz, YOsiz the image offset (ISO/IEC 15444-1 A.5.1).
    right, bottom, left, top = (int.from_bytes(fields[at : at + 4], "big") for at in (0, 4, 8, 12))
    return FrameSize(bottom - top, right - left, int.from_bytes(fields[32:34], "big"))


def _jpeg_size(frame: bytes) -> FrameSize | None:
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker in _FRAME_MARKERS:
            rows, columns = (int.from_bytes(frame[at + i : at + i + 2], "big") for i in (5, 7))
            return FrameSize(rows, columns, frame[at + 9])
        at += 1 if marker == 0xFF else 2 + length  # a marker may be preceded by any number of 0xFF fill bytes
    return None
