"""Compare the size that the header declares with the bytes that are present, before a decoder sees them."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames, parse_basic_offsets, parse_fragments
from pydicom.uid import UID, RLELossless

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.codestream import frame_size, is_complete
from pipeline.dicom.decode.fields import read_value
from pipeline.errors import Rejected, RejectionCode

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def check_payload(ds: Dataset, attributes: InstanceAttributes, samples: int, syntax: UID, limits: DecodeLimits) -> None:
    """Refuse pixel data that cannot be decoded within the limits.

    Raises:
        Rejected: FRAME_COUNT, TRUNCATED_PIXELS, TOO_MANY_PIXELS, DECOMPRESSION_BOMB or CORRUPT_HEADER.
    """
    keyword = next(name for name in PIXEL_KEYWORDS if name in ds)
    data = read_value(ds, keyword)
    if not isinstance(data, bytes) or not data:
        raise Rejected(RejectionCode.TRUNCATED_PIXELS, "The pixel data element is empty. Send the file again.")
    undefined = bool(ds[keyword].is_undefined_length)
    if undefined != syntax.is_encapsulated:
        raise Rejected(
            RejectionCode.CORRUPT_HEADER,
            "Pixel data is encapsulated under a native transfer syntax, or the reverse (PS3.5 A.4). Export it again.",
        )
    if syntax.is_encapsulated:
        _check_fragments(data, attributes, syntax)
    else:
        _check_native(len(data), attributes, samples)
    _check_size(attributes, samples, limits)
    if syntax.is_encapsulated:
        _check_codestreams(data, attributes, samples, syntax, limits)


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
            f"NumberOfFrames is {attributes.frames} but the pixel data holds {whole} frames. Send the file again.",
        )
    if length < expected:
        raise Rejected(
            RejectionCode.TRUNCATED_PIXELS,
            f"The pixel data holds {length} bytes, but the header requires {expected}. Send the file again.",
        )
    if length - expected >= frame_bytes and frame_bytes > 1:
        raise Rejected(
            RejectionCode.FRAME_COUNT,
            f"NumberOfFrames is {attributes.frames} but the pixel data holds {whole} frames. Correct the header.",
        )


def _check_fragments(data: bytes, attributes: InstanceAttributes, syntax: UID) -> None:
    offsets = parse_basic_offsets(data)
    count = parse_fragments(data[8 + 4 * len(offsets) :])[0]
    exact = syntax == RLELossless  # exactly one fragment per frame (PS3.5 A.4.2); JPEG frames may be split into several
    wrong_table = bool(offsets) and len(offsets) != attributes.frames
    if count < attributes.frames or wrong_table or (exact and count != attributes.frames):
        raise Rejected(
            RejectionCode.FRAME_COUNT,
            f"NumberOfFrames is {attributes.frames}, but the pixel data holds {count} fragments and "
            f"{len(offsets)} offsets. Send the file again.",
        )


def _check_codestreams(
    data: bytes, attributes: InstanceAttributes, samples: int, syntax: UID, limits: DecodeLimits
) -> None:
    declared = (attributes.rows, attributes.columns, samples)
    for frame in generate_frames(data, number_of_frames=attributes.frames):
        size = frame_size(frame, syntax)
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
            raise Rejected(RejectionCode.TRUNCATED_PIXELS, "A compressed frame has no end marker. Send the file again.")
