"""Decode pixel data to stored values: integers (or floats) of one luminance channel, exactly as the file means them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.fields import integer, required_integer
from pipeline.dicom.decode.luminance import Luminance, luminance_of
from pipeline.dicom.decode.payload import check_payload
from pipeline.dicom.decode.source import is_control_flow
from pipeline.errors import Rejected, RejectionCode
from pipeline.types import Step

# Each list: first those that are right on every file of the tests' table, among them the fastest first (512 x 512,
# 16 bit, ms: J2K gdcm 16, pylibjpeg 26; JPEG-LS pyjpegls 5; JPEG lossless gdcm 4.5, pylibjpeg 10; RLE pylibjpeg 0.8).
# Pillow and gdcm give the same bits of 8-bit JPEG, pylibjpeg rounds otherwise; gdcm aborts on some broken files: last.
PLUGINS: dict[UID, tuple[str, ...]] = {
    JPEGBaseline8Bit: ("pillow", "pylibjpeg", "gdcm"),
    JPEGExtended12Bit: ("pillow", "pylibjpeg", "gdcm"),
    JPEGLossless: ("gdcm", "pylibjpeg"),
    JPEGLosslessSV1: ("gdcm", "pylibjpeg"),
    JPEGLSLossless: ("pyjpegls", "gdcm", "pylibjpeg"),
    JPEGLSNearLossless: ("pyjpegls", "gdcm", "pylibjpeg"),
    JPEG2000Lossless: ("gdcm", "pylibjpeg"),
    JPEG2000: ("pylibjpeg", "gdcm"),
    HTJ2KLossless: ("pylibjpeg",),
    HTJ2KLosslessRPCL: ("pylibjpeg",),
    HTJ2K: ("pylibjpeg",),
    RLELossless: ("pylibjpeg", "pydicom"),
}
_UNPACKED = (*PLUGINS[RLELossless], "")  # plugins whose integers still carry whatever lies beyond BitsStored


@dataclass(frozen=True, slots=True)
class Layout:
    """How samples lie in the pixel data, beyond what `InstanceAttributes` keeps."""

    samples: int
    high_bit: int
    real: bool
    syntax: UID

    @classmethod
    def of(cls, ds: Dataset, attributes: InstanceAttributes, syntax: UID) -> Layout:
        """Read the layout.

        Raises:
            Rejected: UNSUPPORTED_PIXELS, MISSING_ATTRIBUTE or CORRUPT_HEADER.
        """
        samples = required_integer(ds, "SamplesPerPixel", 1, 65535)
        real = "FloatPixelData" in ds or "DoubleFloatPixelData" in ds
        if samples not in (1, 3) or (not real and attributes.bits_allocated not in (1, 8, 16, 32)):
            sentence = (
                f"{samples} samples of {attributes.bits_allocated} bits a pixel; 1 or 3 of 1, 8, 16 or 32 are read."
            )
            raise Rejected(RejectionCode.UNSUPPORTED_PIXELS, sentence + " Convert the image.")
        return cls(samples, _high_bit(ds, attributes), real, syntax)


def _high_bit(ds: Dataset, attributes: InstanceAttributes) -> int:
    """Return the place of the highest significant bit: `bits_stored` of them must fit beneath it (PS3.5 8.1.1)."""
    least = attributes.bits_stored - 1
    return (
        least
        if integer(ds, "HighBit") is None
        else required_integer(ds, "HighBit", least, attributes.bits_allocated - 1)
    )


def decode(
    ds: Dataset, attributes: InstanceAttributes, syntax: UID, limits: DecodeLimits
) -> tuple[np.ndarray, InstanceAttributes, tuple[Step, ...]]:
    """Decode all frames.

    Returns:
        stored [F, H, W], the attributes as they hold for it (luminance: photometric, bits), and the steps taken.

    Raises:
        Rejected: the size breaks a limit, the data is short, or no decoder can read it.
    """
    if "NumberOfFrames" in ds and integer(ds, "NumberOfFrames") is None:
        del ds.NumberOfFrames  # blank is as good as absent: one frame; pydicom fails over it
    plugins = _available(syntax)
    layout = Layout.of(ds, attributes, syntax)
    check_payload(ds, attributes, layout.samples, syntax, limits)
    luminance = luminance_of(ds, attributes, layout.samples)
    for plugin in plugins:
        try:
            stored = _decode_with(plugin, ds, attributes, layout, luminance)
        except (Rejected, MemoryError, RecursionError):
            raise
        except BaseException as error:
            if is_control_flow(error):
                raise
            failure = type(error).__name__
            continue
        steps = (Step("decode", {"transfer_syntax": str(syntax), "decoder": plugin or "pydicom"}), *luminance.steps)
        return stored, luminance.describe(attributes), steps
    raise Rejected(
        RejectionCode.DECODE_FAILED,
        f"{syntax.name}: {', '.join(plugins) or 'pydicom'} could not decode the pixels ({failure}). Send it again.",
    )


def _available(syntax: UID) -> tuple[str, ...]:
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        name = syntax.name if syntax.is_transfer_syntax and not syntax.is_private else "an unknown transfer syntax"
        sentence = f"No decoder reads {name}. Send the image in another transfer syntax."
        raise Rejected(RejectionCode.UNSUPPORTED_TRANSFER_SYNTAX, sentence) from None
    if not syntax.is_encapsulated:
        return ("",)
    found = tuple(plugin for plugin in PLUGINS.get(syntax, ()) if plugin in decoder.available_plugins)
    if not found:
        sentence = f"The decoders of {syntax.name} are not installed. Install {' or '.join(PLUGINS.get(syntax, ()))}."
        raise Rejected(RejectionCode.UNSUPPORTED_TRANSFER_SYNTAX, sentence)
    return found


def _decode_with(
    plugin: str, ds: Dataset, attributes: InstanceAttributes, layout: Layout, luminance: Luminance
) -> np.ndarray:
    dtype = np.dtype(f"f{attributes.bits_allocated // 8}") if layout.real else luminance.dtype
    stored = np.empty((attributes.frames, attributes.rows, attributes.columns), dtype=dtype)
    count = 0
    for index, (frame, space) in enumerate(_frames(plugin, ds, layout)):
        if index >= attributes.frames:
            break
        if not layout.real:
            frame = _significant(frame, attributes, layout, plugin)
        stored[index] = frame if layout.real else luminance.apply(frame, space)
        count += 1
    if count != attributes.frames:
        raise Rejected(
            RejectionCode.FRAME_COUNT, f"NumberOfFrames is {attributes.frames} and {count} are there. Send it again."
        )
    if layout.real and not np.isfinite(stored).all():
        raise Rejected(
            RejectionCode.NON_FINITE, "Some pixels are not finite numbers; every pixel must be. Correct them."
        )
    return stored


def _frames(plugin: str, ds: Dataset, layout: Layout) -> Iterator[tuple[np.ndarray, str]]:
    """Yield (frame, colour space) as they were encoded: no colour conversion, no bits altered."""
    options = {} if layout.syntax.is_encapsulated else {"view_only": True}
    if layout.syntax == RLELossless or not layout.syntax.is_encapsulated:
        options["correct_unused_bits"] = False
    for frame, meta in get_decoder(layout.syntax).iter_array(ds, raw=True, decoding_plugin=plugin, **options):
        yield frame, str(meta["photometric_interpretation"])


def _significant(frame: np.ndarray, attributes: InstanceAttributes, layout: Layout, plugin: str) -> np.ndarray:
    """Keep BitsStored bits below HighBit, sign-extended (PS3.5 8.1.1): old files hide overlays in the others.

    A padding value outside BitsStored, as some CT write it, is kept as it is, so that it can still be matched.
    """
    width, stored = frame.dtype.itemsize * 8, attributes.bits_stored
    if plugin not in _UNPACKED or attributes.bits_allocated == 1 or stored >= width:
        return frame
    up = width - 1 - layout.high_bit
    wide = np.left_shift(frame, up) if up > 0 else frame.copy()
    kept = np.right_shift(wide, width - stored)
    padding = attributes.padding_value
    if padding is not None and layout.samples == 1 and not _fits(padding, attributes):
        kept[frame == padding] = padding
    return kept


def _fits(value: int, attributes: InstanceAttributes) -> bool:
    low, bits = (
        (-(2 ** (attributes.bits_stored - 1)), attributes.bits_stored - 1)
        if attributes.pixel_representation
        else (0, attributes.bits_stored)
    )
    return low <= value < 2**bits
