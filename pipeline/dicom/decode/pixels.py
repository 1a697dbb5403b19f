"""Decode pixel data to stored values: integers (or floats) of one luminance channel, bit for bit as in the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

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

from pipeline.dicom.decode.attributes import NAN_PADDING, InstanceAttributes
from pipeline.dicom.decode.codestream import Coding
from pipeline.dicom.decode.fields import has, read_integer, read_text, require_integer
from pipeline.dicom.decode.luminance import Luminance, choose_luminance
from pipeline.dicom.decode.payload import Payload, check_payload
from pipeline.dicom.decode.source import is_control_flow
from pipeline.dicom.decode.vendors import Assumed
from pipeline.errors import Rejected, RejectionCode
from pipeline.types import Step

if TYPE_CHECKING:
    from pipeline.config import DecodeLimits

# Decoders per transfer syntax: those that decode every file of the tests' table correctly, fastest first (512 x 512,
# 16 bit, ms: J2K pylibjpeg 27, gdcm 30; JPEG-LS pyjpegls 5; JPEG lossless gdcm 4.5, pylibjpeg 10; RLE pylibjpeg 0.8).
# Pillow and gdcm give the same bits for 8-bit JPEG, pylibjpeg rounds differently. gdcm aborts the whole process on some
# broken JPEG files, so it comes last there.
PLUGINS: dict[UID, tuple[str, ...]] = {
    JPEGBaseline8Bit: ("pillow", "pylibjpeg", "gdcm"),
    JPEGExtended12Bit: ("pillow", "pylibjpeg", "gdcm"),
    JPEGLossless: ("gdcm", "pylibjpeg"),
    JPEGLosslessSV1: ("gdcm", "pylibjpeg"),
    JPEGLSLossless: ("pyjpegls", "gdcm", "pylibjpeg"),
    JPEGLSNearLossless: ("pyjpegls", "gdcm", "pylibjpeg"),
    JPEG2000Lossless: ("pylibjpeg", "gdcm"),
    JPEG2000: ("pylibjpeg", "gdcm"),
    HTJ2KLossless: ("pylibjpeg",),
    HTJ2KLosslessRPCL: ("pylibjpeg",),
    HTJ2K: ("pylibjpeg",),
    RLELossless: ("pylibjpeg", "pydicom"),
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Arrangement of samples in the pixel data, beyond what `InstanceAttributes` holds."""

    samples: int
    high_bit: int
    real: bool
    syntax: UID

    @classmethod
    def read(cls, ds: Dataset, attributes: InstanceAttributes, syntax: UID) -> Layout:
        """Read the layout.

        Raises:
            Rejected: UNSUPPORTED_PIXELS, MISSING_ATTRIBUTE or CORRUPT_HEADER.
        """
        samples = require_integer(ds, "SamplesPerPixel", 1, 65535)
        real = has(ds, "FloatPixelData") or has(ds, "DoubleFloatPixelData")
        if samples not in (1, 3) or (not real and attributes.bits_allocated not in (1, 8, 16, 32)):
            sentence = (
                f"SamplesPerPixel is {samples} and BitsAllocated {attributes.bits_allocated}; 1 or 3 samples of 1, 8, "
                "16 or 32 bits are read."
            )
            raise Rejected(RejectionCode.UNSUPPORTED_PIXELS, sentence + " Convert the image to one of these.")
        if not real:
            require_integer(ds, "BitsStored", 1, attributes.bits_allocated)
            require_integer(ds, "PixelRepresentation", 0, 1)
        return cls(samples, _high_bit(ds, attributes), real, syntax)


def _high_bit(ds: Dataset, attributes: InstanceAttributes) -> int:
    """Return the position of the highest significant bit: `bits_stored` bits must fit below it (PS3.5 8.1.1)."""
    least = attributes.bits_stored - 1
    return (
        least
        if read_integer(ds, "HighBit") is None
        else require_integer(ds, "HighBit", least, attributes.bits_allocated - 1)
    )


def decode(
    ds: Dataset, attributes: InstanceAttributes, syntax: UID, limits: DecodeLimits
) -> tuple[np.ndarray, InstanceAttributes, tuple[Step, ...]]:
    """Decode all frames.

    Returns:
        stored [F, H, W], the attributes that describe it (luminance: photometric, bits), and the steps taken.

    Raises:
        Rejected: the size exceeds a limit, the data is too short, or no decoder can read it.
    """
    if has(ds, "NumberOfFrames") and read_integer(ds, "NumberOfFrames") is None:
        del ds.NumberOfFrames  # blank means the same as absent, one frame; pydicom fails on it
    if read_text(ds, "PhotometricInterpretation") != attributes.original_photometric:  # decoders know capitals only
        ds.PhotometricInterpretation = attributes.original_photometric
        attributes = attributes.assuming(Assumed.LOWER_CASE)
    plugins = _available(syntax)
    layout = Layout.read(ds, attributes, syntax)
    payload = check_payload(ds, attributes, layout.samples, syntax, limits)
    if any(_has_unused_bits(coding, attributes) for coding in payload.codings):
        payload = replace(payload, assumed=(*payload.assumed, Assumed.UNUSED_BITS))
    luminance = choose_luminance(ds, attributes, layout.samples)
    for plugin in plugins:
        try:
            stored = _decode_with(plugin, ds, attributes, layout, luminance, payload)
        except (Rejected, MemoryError, RecursionError):
            raise
        except BaseException as error:  # panics of decoders in Rust are not an Exception
            if is_control_flow(error):
                raise
            failure = type(error).__name__
            continue
        steps = (Step("decode", {"transfer_syntax": str(syntax), "decoder": plugin or "pydicom"}), *luminance.steps)
        return stored, luminance.describe(attributes).assuming(*payload.assumed), steps
    raise _undecoded(syntax, plugins, failure, attributes)


def _undecoded(syntax: UID, plugins: Sequence[str], failure: str, attributes: InstanceAttributes) -> Rejected:
    """Return the rejection after the last decoder; uncompressed pixels can only be described wrongly."""
    sentence = f"{syntax.name}: {', '.join(plugins).strip() or 'pydicom'} could not decode the pixels ({failure})"
    if syntax.is_encapsulated:
        advice = ". Export the image uncompressed (Explicit VR Little Endian) from its source."
    else:
        advice = (
            f", which the header describes as {attributes.original_photometric} with {attributes.bits_stored} of "
            f"{attributes.bits_allocated} bits. Correct these elements at their source."
        )
    return Rejected(RejectionCode.DECODE_FAILED, sentence + advice)


def _available(syntax: UID) -> tuple[str, ...]:
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        name = (
            syntax.name
            if syntax.is_transfer_syntax and not syntax.is_private
            else "the transfer syntax, which is unknown"
        )
        sentence = f"No decoder reads {name}. Configure the sender for another one, such as Explicit VR Little Endian."
        raise Rejected(RejectionCode.UNSUPPORTED_TRANSFER_SYNTAX, sentence) from None
    if not syntax.is_encapsulated:
        return ("",)
    installed = tuple(plugin for plugin in PLUGINS.get(syntax, ()) if plugin in decoder.available_plugins)
    if not installed:
        packages = " or ".join(PLUGINS.get(syntax, ()))
        sentence = f"No decoder for {syntax.name} is installed. Install {packages} and ingest again."
        raise Rejected(RejectionCode.UNSUPPORTED_TRANSFER_SYNTAX, sentence)
    return installed


def _decode_with(
    plugin: str,
    ds: Dataset,
    attributes: InstanceAttributes,
    layout: Layout,
    luminance: Luminance,
    payload: Payload,
) -> np.ndarray:
    dtype = np.dtype(f"f{attributes.bits_allocated // 8}") if layout.real else luminance.dtype
    stored = np.empty((attributes.frames, attributes.rows, attributes.columns), dtype=dtype)
    count = 0
    for index, (frame, space) in enumerate(_frames(plugin, ds, layout)):
        if index >= attributes.frames:
            break
        if not layout.real:
            coding = payload.codings[index] if payload.codings else None
            frame = _significant(frame, attributes, layout, coding)
        stored[index] = frame if layout.real else luminance.apply(frame, space)
        count += 1
    if count != attributes.frames:
        raise Rejected(
            RejectionCode.FRAME_COUNT,
            f"NumberOfFrames is {attributes.frames}, but {count} frames were decoded. Export the whole object.",
        )
    if layout.real and attributes.padding_value == NAN_PADDING:
        stored[np.isnan(stored)] = NAN_PADDING
    if layout.real and not np.isfinite(stored).all():
        bad = int(stored.size - np.isfinite(stored).sum())
        raise Rejected(
            RejectionCode.NON_FINITE,
            f"{bad} of {stored.size} pixels are NaN or infinite; all must be finite numbers, or declared as "
            "FloatPixelPaddingValue. Correct them at their source.",
        )
    return stored


def _frames(plugin: str, ds: Dataset, layout: Layout) -> Iterator[tuple[np.ndarray, str]]:
    """Yield (frame, colour space) as encoded: without colour conversion and with all bits unchanged."""
    options: dict[str, Any] = {} if layout.syntax.is_encapsulated else {"view_only": True}
    if layout.syntax == RLELossless or not layout.syntax.is_encapsulated:
        options["correct_unused_bits"] = False
    for frame, meta in get_decoder(layout.syntax).iter_array(ds, raw=True, decoding_plugin=plugin, **options):
        yield frame, str(meta["photometric_interpretation"])


def _has_unused_bits(coding: Coding, attributes: InstanceAttributes) -> bool:
    """Whether a stream codes bits that are not stored ones, bit for bit. A lossy one has lost what they were."""
    return coding.lossless and coding.precision > attributes.bits_stored


def _significant(
    frame: np.ndarray, attributes: InstanceAttributes, layout: Layout, coding: Coding | None
) -> np.ndarray:
    """Keep BitsStored bits below HighBit, sign-extended (PS3.5 8.1.1): old files hide overlays in the other bits.

    Native and RLE data have them always (`coding` None or empty), other streams where they code more than BitsStored.

    Some CT scanners write a padding value outside BitsStored; it is left as it is, so that it can still be recognised.
    """
    width, stored = frame.dtype.itemsize * 8, attributes.bits_stored
    unpacked = coding is None or not coding.precision or _has_unused_bits(coding, attributes)
    if not unpacked or attributes.bits_allocated == 1 or stored >= width:
        return frame
    up = width - 1 - layout.high_bit
    wide = np.left_shift(frame, up) if up > 0 else frame.copy()  # moves HighBit to the top bit
    significant = np.right_shift(wide, width - stored)  # arithmetic for signed types, so it extends the sign
    padding = attributes.padding_value
    if padding is not None and layout.samples == 1 and not _fits(padding, attributes):
        significant[frame == padding] = padding
    return significant


def _fits(value: float, attributes: InstanceAttributes) -> bool:
    low, bits = (
        (-(2 ** (attributes.bits_stored - 1)), attributes.bits_stored - 1)
        if attributes.pixel_representation
        else (0, attributes.bits_stored)
    )
    return low <= value < 2**bits
