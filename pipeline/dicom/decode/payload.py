"""Compare the size that the header declares with the bytes that are present, before a decoder sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEGBaseline8Bit, JPEGExtended12Bit

from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.codestream import Coding, coding_of, frame_size, is_complete, is_signed, with_whole_scans
from pipeline.dicom.decode.fields import has, read_value, tag_of
from pipeline.dicom.decode.fragments import split_frames
from pipeline.dicom.decode.vendors import Assumed
from pipeline.errors import Rejected, RejectionCode

if TYPE_CHECKING:
    from pipeline.config import DecodeLimits

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_DCT = (JPEGBaseline8Bit, JPEGExtended12Bit)


@dataclass(frozen=True, slots=True)
class Payload:
    """Pixel data that may be decoded: the coding of each compressed frame (none if native), and what was assumed."""

    codings: tuple[Coding, ...] = ()
    assumed: tuple[str, ...] = ()


def check_payload(
    ds: Dataset, attributes: InstanceAttributes, samples: int, syntax: UID, limits: DecodeLimits
) -> Payload:
    """Refuse pixel data that cannot be decoded within the limits; rewrite in `ds` what decoders read too strictly.

    Raises:
        Rejected: FRAME_COUNT, TRUNCATED_PIXELS, TOO_MANY_PIXELS, DECOMPRESSION_BOMB or CORRUPT_HEADER.
    """
    keyword = next(name for name in PIXEL_KEYWORDS if has(ds, name))
    data = read_value(ds, keyword)
    if not isinstance(data, bytes) or not data:
        raise Rejected(RejectionCode.TRUNCATED_PIXELS, "The pixel data element is empty. Export the image again.")
    undefined = bool(ds[tag_of(keyword)].is_undefined_length)
    if undefined != syntax.is_encapsulated:
        raise Rejected(
            RejectionCode.CORRUPT_HEADER,
            "Pixel data is encapsulated under a native transfer syntax, or the reverse (PS3.5 A.4). Export it again.",
        )
    if not syntax.is_encapsulated:
        _check_native(len(data), attributes, samples)
        _check_size(attributes, samples, limits)
        return Payload()
    frames, split = split_frames(data, attributes.frames, samples * attributes.bits_allocated // 8, syntax)
    _check_size(attributes, samples, limits)
    for frame in frames:
        _check_codestream(frame, attributes, samples, syntax, limits)
    mended = [with_whole_scans(frame) for frame in frames] if syntax in _DCT else frames
    if split or mended != frames:
        _replace(ds, mended)
    other_sign = any(is_signed(frame, syntax) is (attributes.pixel_representation == 0) for frame in frames)
    assumed = [Assumed.RLE_FRAGMENTS] * split + [Assumed.SCAN_HEADER] * (mended != frames)
    assumed += [Assumed.STREAM_SIGN] * other_sign
    return Payload(tuple(coding_of(frame, syntax) for frame in frames), tuple(assumed))


def _replace(ds: Dataset, frames: list[bytes]) -> None:
    ds.PixelData = encapsulate(frames)
    ds["PixelData"].is_undefined_length = True
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in ds:
            delattr(ds, keyword)


def _check_size(attributes: InstanceAttributes, samples: int, limits: DecodeLimits) -> None:
    # Python integers do not overflow: 65535 x 65535 x 2^31 frames is a valid, and hostile, header.
    pixels = attributes.rows * attributes.columns * attributes.frames * samples
    needed = pixels * max(1, attributes.bits_allocated // 8)
    if needed > limits.decoded_bytes:
        raise Rejected(
            RejectionCode.TOO_MANY_PIXELS,
            f"{attributes.frames} frames of {attributes.rows} x {attributes.columns} need {needed} bytes, more than "
            f"`decoded_bytes` = {limits.decoded_bytes}. If the image is genuine, raise that value in settings.yaml.",
        )


def _check_native(length: int, attributes: InstanceAttributes, samples: int) -> None:
    per_pixel = 2 if attributes.original_photometric == "YBR_FULL_422" else samples
    frame_bits = attributes.rows * attributes.columns * per_pixel * attributes.bits_allocated
    expected = (frame_bits * attributes.frames + 7) // 8
    frame_bytes = max(1, frame_bits // 8)
    whole = length // frame_bytes
    if length < expected and attributes.frames > 1:
        raise Rejected(
            RejectionCode.FRAME_COUNT,
            f"NumberOfFrames is {attributes.frames} but the pixel data holds {whole} frames. Export the whole object.",
        )
    if length < expected:
        raise Rejected(
            RejectionCode.TRUNCATED_PIXELS,
            f"The pixel data holds {length} bytes, but {attributes.rows} x {attributes.columns} pixels of "
            f"{attributes.bits_allocated} bits require {expected}. Copy the whole file, or correct the header.",
        )
    if length - expected >= frame_bytes and frame_bytes > 1:
        raise Rejected(
            RejectionCode.FRAME_COUNT,
            f"NumberOfFrames is {attributes.frames} but the pixel data holds {whole} frames. Correct the header.",
        )


def _check_codestream(
    frame: bytes, attributes: InstanceAttributes, samples: int, syntax: UID, limits: DecodeLimits
) -> None:
    declared, size = (attributes.rows, attributes.columns, samples), frame_size(frame, syntax)
    if size is not None and size.rows * size.columns * size.samples * 2 > limits.decoded_bytes:
        raise Rejected(
            RejectionCode.DECOMPRESSION_BOMB,
            f"A compressed frame declares {size.rows} x {size.columns} pixels, more than `decode.decoded_bytes` "
            "allows. If the image is genuine, raise that value in settings.yaml.",
        )
    if size is not None and size.rows and tuple(size) != declared:
        raise Rejected(
            RejectionCode.CORRUPT_HEADER,
            f"A compressed frame is {size.rows} x {size.columns} x {size.samples} but the header declares "
            f"{declared[0]} x {declared[1]} x {declared[2]}. Export the image again.",
        )
    if not is_complete(frame, syntax):
        raise Rejected(
            RejectionCode.TRUNCATED_PIXELS, "A compressed frame has no end marker. Copy the whole file from its source."
        )
