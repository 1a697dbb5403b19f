"""Hold what the header declares against the bytes that are there, before a decoder sees them."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames, parse_basic_offsets, parse_fragments
from pydicom.uid import UID, RLELossless

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.codestream import frame_size, is_complete
from pipeline.dicom.decode.fields import raw_value
from pipeline.errors import Rejected, RejectionCode

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def check_payload(ds: Dataset, attributes: InstanceAttributes, samples: int, syntax: UID, limits: DecodeLimits) -> None:
    """Refuse what cannot be decoded in bounds.

    Raises:
        Rejected: FRAME_COUNT, TRUNCATED_PIXELS, TOO_MANY_PIXELS, DECOMPRESSION_BOMB or CORRUPT_HEADER.
    """
    keyword = next(name for name in PIXEL_KEYWORDS if name in ds)
    data = raw_value(ds, keyword)
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
    pixels = attributes.rows * attributes.columns * attributes.frames * samples
    needed = pixels * max(1, attributes.bits_allocated // 8)
    if needed > limits.decoded_bytes:
        raise Rejected(
            RejectionCode.TOO_MANY_PIXELS,
            f"{attributes.frames} frames of {attributes.rows} x {attributes.columns} need {needed} bytes, more than "
            f"`decoded_bytes` = {limits.decoded_bytes}. Raise the limit if the image is real.",
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
            f"NumberOfFrames is {attributes.frames} and the pixel data holds {whole}. Send the file again.",
        )
    if length < expected:
        raise Rejected(
            RejectionCode.TRUNCATED_PIXELS,
            f"The pixel data holds {length} bytes and {expected} are needed. Send the file again.",
        )
    if length - expected >= frame_bytes and frame_bytes > 1:
        raise Rejected(
            RejectionCode.FRAME_COUNT,
            f"NumberOfFrames is {attributes.frames} and the pixel data holds {whole}. Correct the header.",
        )


def _check_fragments(data: bytes, attributes: InstanceAttributes, syntax: UID) -> None:
    offsets = parse_basic_offsets(data)
    count = parse_fragments(data[8 + 4 * len(offsets) :])[0]
    exact = syntax == RLELossless  # one fragment a frame (PS3.5 A.4.2)
    wrong_table = bool(offsets) and len(offsets) != attributes.frames
    if count < attributes.frames or wrong_table or (exact and count != attributes.frames):
        raise Rejected(
            RejectionCode.FRAME_COUNT,
            f"NumberOfFrames is {attributes.frames}, and the pixel data holds {count} fragments and "
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
                f"A compressed frame is {size.rows} x {size.columns}, beyond `decoded_bytes`. Exclude the file.",
            )
        if size is not None and size.rows and tuple(size) != declared:
            raise Rejected(
                RejectionCode.CORRUPT_HEADER,
                f"A compressed frame is {size.rows} x {size.columns} x {size.samples} and the header says "
                f"{declared[0]} x {declared[1]} x {declared[2]}. Export the image again.",
            )
        if not is_complete(frame, syntax):
            raise Rejected(RejectionCode.TRUNCATED_PIXELS, "A compressed frame has no end marker. Send the file again.")
