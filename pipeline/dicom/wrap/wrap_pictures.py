"""Read PNG, JPEG and TIFF images as grey frames, upright and with white as the largest value.

A format that Pillow would silently reduce or misread (16-bit colour, inverted floats) is refused.
"""

from __future__ import annotations

import struct
import warnings
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image, ImageOps, ImageSequence, TiffImagePlugin, UnidentifiedImageError

from pipeline.config import DecodeLimits
from pipeline.dicom.wrap.wrap_geometry import FrameGeometry
from pipeline.errors import Rejected, RejectionCode

LUMINANCE = "RGB to luminance (ITU-R BT.601)"
_GREY = {"1", "L", "I;16", "I;16B", "I;16L", "I", "F"}
_COLOUR = {"P", "RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr"}
# TIFF 6.0 section 8; Pillow inverts WhiteIsZero for up to 8 bits only, and does not open these deeper ones at all.
_BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLE_FORMAT = 258, 262, 274, 339
_WHITE_IS_ZERO = 0
_UNSIGNED, _SIGNED = 1, 2  # Sample Format, 1 by default; Pillow swaps them at 32 bits, and opens 8 bits as unsigned
_FORMATS = {1: "unsigned integers", 2: "signed integers", 3: "floats"}
for _order, _end in ((b"MM", "B"), (b"II", "")):
    TiffImagePlugin.OPEN_INFO.setdefault((_order, 0, (1,), 1, (16,), ()), (f"I;16{_end}", f"I;16{_end}"))
    TiffImagePlugin.OPEN_INFO.setdefault((_order, 0, (2,), 1, (16,), ()), ("I", f"I;16{_end}S"))
    TiffImagePlugin.OPEN_INFO.setdefault((_order, 1, (1,), 1, (32,), ()), ("I", f"I;32{_end}S"))


@dataclass(frozen=True, slots=True)
class Picture:
    """One image or volume.

    Attributes:
        frames: numbers [F, H, W].
        volume: the frames belong together (and become one multi-frame object); otherwise there is one frame.
        notes: short English phrases, one for each change of the pixels.
        lossy_ratio: compression ratio of a lossy source (JPEG); None where the source is lossless.
        geometry: position of the frames, None where the source does not give it.
    """

    frames: np.ndarray
    volume: bool = False
    notes: tuple[str, ...] = ()
    lossy_ratio: float | None = None
    geometry: FrameGeometry | None = None


def too_many(limits: DecodeLimits) -> Rejected:
    """Return the rejection of an image whose array would exceed the limit."""
    sentence = f"The image needs more than `decode.decoded_bytes` = {limits.decoded_bytes} bytes. If it is genuine, "
    sentence += "raise that value in settings.yaml."
    return Rejected(RejectionCode.TOO_MANY_PIXELS, sentence)


def read_pages(path: Path, limits: DecodeLimits) -> Picture:
    """Read every page of a PNG, JPEG or TIFF file.

    Raises:
        Rejected: damaged, too large, of an unsupported format, or with pages of several sizes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            # By name, Pillow 13 maps an uncompressed TIFF with the sides that its orientation swaps, and scrambles it.
            with path.open("rb") as stream, Image.open(stream, formats=("PNG", "JPEG", "TIFF")) as image:
                count = getattr(image, "n_frames", 1)
                left_out = count - 1 if image.format == "MPO" else 0  # CIPA DC-007: previews of the first picture
                count -= left_out
                if image.width * image.height * count * 4 > limits.decoded_bytes:
                    raise too_many(limits)
                _refuse_deep_colour(image, path)
                _refuse_transparent_grey(image, path)
                ratio = _lossy_ratio(image, path)
                pages = [_read_page(frame) for frame in islice(ImageSequence.Iterator(image), count)]
        except UnidentifiedImageError:
            raise _unidentified(path) from None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise too_many(limits) from None
    if len({frame.shape for frame, _ in pages}) > 1:
        sizes = ", ".join(sorted({" x ".join(map(str, frame.shape)) for frame, _ in pages})[:3])
        raise Rejected(
            RejectionCode.MIXED_SIZES,
            f"The pages of the file differ in size ({sizes}); a volume has one. Save each page as its own file.",
        )
    notes = sorted({note for _, notes in pages for note in notes})
    notes += [f"without {left_out} further pictures of the JPEG file"] if left_out else []
    return Picture(np.stack([frame for frame, _ in pages]), count > 1, tuple(notes), ratio)


def _read_page(frame: Image.Image) -> tuple[np.ndarray, list[str]]:
    tags: Any = getattr(frame, "tag_v2", {})
    white_is_zero, bits = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO, tags.get(_BITS, (8,))[0]
    mode = frame.mode
    upright, turned = _upright(frame, tags.get(_ORIENTATION))
    values, coloured = to_grey(upright)
    sample = tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0]
    if mode == "I" and bits == 32 and sample == _UNSIGNED:
        values = values.view(np.uint32)
    if mode == "L" and bits == 8 and sample == _SIGNED:
        values = values.view(np.int8)
    inverted = ""
    if white_is_zero and mode not in ("1", "L"):
        values, inverted = _inverted(values, mode, bits), "white was zero"
    return values, [note for note in (turned, coloured, inverted) if note]


def _upright(frame: Image.Image, tag: int | None) -> tuple[Image.Image, str]:
    """Return the image as its orientation tag (EXIF 0x0112, TIFF 274) shows it, and a note where it was turned."""
    frame.load()  # turns a TIFF, and finds the tag of a PNG that writes it behind its pixels
    orientation = tag or frame.getexif().get(_ORIENTATION, 1)
    if orientation not in range(2, 9):
        return frame, ""
    return ImageOps.exif_transpose(frame), f"turned upright (orientation {orientation})"


def _inverted(values: np.ndarray, mode: str, bits: int) -> np.ndarray:
    """Return WhiteIsZero values with black as the smallest, within the range of their type."""
    if mode == "F" or bits != 16:
        raise Rejected(
            RejectionCode.UNSUPPORTED_PIXELS,
            f"The TIFF says that its smallest value is white (PhotometricInterpretation 0), with {bits}-bit values of "
            "unknown range. Save it with PhotometricInterpretation 1.",
        )
    return -1 - values if mode == "I" else np.invert(values)


def _unidentified(path: Path) -> Rejected:
    """Return the rejection of a file that Pillow does not open: of a TIFF, with the properties that it lacks."""
    try:
        with path.open("rb") as stream:
            directory = TiffImagePlugin.ImageFileDirectory_v2(stream.read(8))
            stream.seek(directory.next)
            directory.load(stream)
            bits, sample = directory[_BITS], directory.get(_SAMPLE_FORMAT, (_UNSIGNED,))
            numbers = _FORMATS.get(sample[0], f"SampleFormat {sample[0]}")
            photometric = directory[_PHOTOMETRIC]
    except (OSError, SyntaxError, struct.error, ValueError, LookupError, TypeError):
        sentence = "The file is not a PNG, JPEG or TIFF, or it is damaged. Create it again."
        return Rejected(RejectionCode.DECODE_FAILED, sentence)
    return Rejected(
        RejectionCode.UNSUPPORTED_PIXELS,
        f"The TIFF holds {bits[0]}-bit {numbers} with PhotometricInterpretation {photometric}, which is not supported. "
        "Save it with PhotometricInterpretation 1 as integers of 8, 16 or 32 bits or floats of 32 bits.",
    )


def _refuse_transparent_grey(image: Image.Image, path: Path) -> None:
    """Refuse a grey PNG whose pixels use the value that its tRNS chunk makes transparent (PNG 11.3.2.1)."""
    value = image.info.get("transparency")
    if image.format != "PNG" or image.mode not in _GREY or not isinstance(value, int):
        return
    with path.open("rb") as stream:
        depth = stream.read(26)[24]
    if depth in (2, 4):  # Pillow widens the pixels to 8 bits, but not the value
        value *= 255 // (2**depth - 1)
    if np.any(np.asarray(image.convert("L") if image.mode == "1" else image) == value):
        raise Rejected(
            RejectionCode.UNSUPPORTED_PIXELS,
            f"The image is partly transparent: its tRNS chunk makes the grey {value} transparent. Flatten it before "
            "wrapping.",
        )


def _refuse_deep_colour(image: Image.Image, path: Path) -> None:
    """Refuse colour or alpha that Pillow would reduce to 8 bits: PNG (11.2.2, bytes 24-25) and TIFF of 16 bits."""
    deep = False
    if image.format == "PNG":
        with path.open("rb") as stream:
            head = stream.read(26)
        deep = head[24] == 16 and head[25] != 0
    elif image.format == "TIFF":
        bits = cast(Any, image).tag_v2.get(_BITS, (8,))
        deep = len(bits) > 1 and max(bits) > 8
    if deep:
        raise Rejected(
            RejectionCode.UNSUPPORTED_PIXELS, "The image has 16-bit colour or alpha. Convert it to 16-bit grey."
        )


def to_grey(frame: Image.Image) -> tuple[np.ndarray, str]:
    """Return the values of an image as one channel, and a note where it was coloured.

    Raises:
        Rejected: UNSUPPORTED_PIXELS, another colour mode, or partly transparent.
    """
    if frame.mode in _GREY:
        values = np.asarray(frame)
        return (values.astype(np.uint8) * 255 if frame.mode == "1" else values.copy()), ""
    if frame.mode not in _COLOUR:
        raise Rejected(
            RejectionCode.UNSUPPORTED_PIXELS,
            f"The colour mode {frame.mode} is not supported. Convert the image to RGB or grey.",
        )
    rgba = frame.convert("RGBA")
    least = cast(Any, rgba.getextrema())[3][0]
    if least != 255:
        sentence = (
            f"The image is partly transparent: alpha is {least} somewhere and must be 255. Flatten it before wrapping."
        )
        raise Rejected(RejectionCode.UNSUPPORTED_PIXELS, sentence)
    red, green, blue = (np.asarray(band) for band in rgba.split()[:3])
    if np.array_equal(red, green) and np.array_equal(green, blue):
        return red.copy(), "equal colour channels to one"
    return np.asarray(rgba.convert("RGB").convert("L")).copy(), LUMINANCE


def _lossy_ratio(image: Image.Image, path: Path) -> float | None:
    compression = str(image.info.get("compression", "")) if image.format == "TIFF" else ""
    if image.format not in ("JPEG", "MPO") and "jpeg" not in compression:
        return None
    return round(max(1.0, image.width * image.height * len(image.getbands()) / path.stat().st_size), 2)
