"""Convert colour to one luminance channel, in integer arithmetic and without loss where the colour is grey."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut

from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.fields import read_optional_text
from pipeline.errors import Rejected, RejectionCode
from pipeline.types import Step

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
LUMA_FIRST = ("YBR_FULL", "YBR_FULL_422")  # the first sample is the luminance (PS3.3 C.7.6.3.1.2)
COLOUR = ("RGB", "YBR_RCT", "YBR_ICT", *LUMA_FIRST)
# All terms of PS3.3 C.7.6.3.1.2, with the retired ones; anything else may be text that somebody typed.
_DEFINED = {
    *MONOCHROME,
    *COLOUR,
    *["HSV", "ARGB", "CMYK", "XYB", "YBR_PARTIAL_420", "YBR_PARTIAL_422"],
    "PALETTE COLOR",
}
WEIGHTS = (299, 587, 114)  # of R, G, B in thousandths: the Y of YBR_FULL (PS3.3 C.7.6.3.1.2, from ITU-R BT.601)


@dataclass(frozen=True, slots=True)
class Luminance:
    """Conversion of a decoded frame to one channel of type `dtype`; `table` is set for a palette."""

    dtype: np.dtype
    bits: int
    steps: tuple[Step, ...] = ()
    table: np.ndarray | None = None
    colour: bool = False

    def apply(self, frame: np.ndarray, space: str) -> np.ndarray:
        """Return [H, W] of a frame [H, W] or [H, W, 3] in colour space `space`."""
        if self.table is not None:
            return self.table[frame]
        if not self.colour:
            return frame
        return frame[..., 0] if space in LUMA_FIRST else weigh(frame)

    def describe(self, attributes: InstanceAttributes) -> InstanceAttributes:
        """Return the attributes of the luminance image; padding and LUTs are only defined for grey images."""
        if not self.colour:
            return attributes
        return replace(
            attributes,
            photometric="MONOCHROME2",
            bits_stored=self.bits,
            pixel_representation=0,
            padding_value=None,
            padding_range_limit=None,
        )


def weigh(rgb: np.ndarray) -> np.ndarray:
    """Return the luminance of RGB [..., 3], rounded half up, in the same integer type; exact for grey pixels."""
    # The weights sum to 1000, so for grey pixels the integer division returns the value itself.
    wide: Any = np.uint64 if rgb.dtype.itemsize > 2 else np.uint32
    red, green, blue = (rgb[..., channel].astype(wide) * wide(WEIGHTS[channel]) for channel in range(3))
    return ((red + green + blue + wide(500)) // wide(1000)).astype(rgb.dtype)


def choose_luminance(ds: Dataset, attributes: InstanceAttributes, samples: int) -> Luminance:
    """Choose the conversion for an image.

    Raises:
        Rejected: UNSUPPORTED_PIXELS, the photometric interpretation is not supported.
    """
    photometric, bits = attributes.original_photometric, attributes.bits_stored
    if photometric in MONOCHROME and samples == 1:
        return Luminance(smallest_dtype(bits, attributes.pixel_representation), bits)
    if attributes.pixel_representation == 0 and photometric == "PALETTE COLOR" and samples == 1:
        return _palette(ds, attributes)
    if attributes.pixel_representation == 0 and photometric in COLOUR and samples == 3:
        step = Step("luminance", {"from": photometric, "weights_per_mille": list(WEIGHTS)})
        return Luminance(smallest_dtype(bits, 0), bits, (step,), colour=True)
    raise Rejected(
        RejectionCode.UNSUPPORTED_PIXELS,
        f"PhotometricInterpretation is {_quotable(ds)} with SamplesPerPixel {samples} and PixelRepresentation "
        f"{attributes.pixel_representation}; {', '.join(MONOCHROME)} and PALETTE COLOR with 1 sample, and "
        f"{', '.join(COLOUR)} with 3 unsigned samples are read. Convert the image to one of these.",
    )


def _quotable(ds: Dataset) -> str:
    """Return PhotometricInterpretation where it is a term that the standard defines, else its length."""
    code = read_optional_text(ds, "PhotometricInterpretation").upper()
    return repr(code) if code in _DEFINED else f"no defined term but {len(code)} characters"


def _palette(ds: Dataset, attributes: InstanceAttributes) -> Luminance:
    """Build the table from palette index to luminance once; it is exact where the palette is grey."""
    index_type = np.dtype(np.uint8 if attributes.bits_stored <= 8 else np.uint16)
    indices = np.arange(2 ** (8 * index_type.itemsize), dtype=np.int64).astype(index_type)
    table = weigh(apply_color_lut(indices, _little_endian_palette(ds))[:, :3])
    bits = 8 * table.dtype.itemsize
    step = Step("luminance", {"from": "PALETTE COLOR", "weights_per_mille": list(WEIGHTS)})
    return Luminance(table.dtype, bits, (step,), table, colour=True)


def _little_endian_palette(ds: Dataset) -> Dataset:
    """Return the palette with little-endian 16-bit entries: pydicom 3.0.2 reads them so even in big-endian files."""
    if ds.original_encoding[1] or "RedPaletteColorLookupTableData" not in ds:
        return ds
    entries = int(ds.RedPaletteColorLookupTableDescriptor[0]) or 2**16
    palette = Dataset()
    for colour in ("Red", "Green", "Blue"):
        data = ds[f"{colour}PaletteColorLookupTableData"].value
        wide = len(data) >= 2 * entries
        data = np.frombuffer(data, dtype=">u2").astype("<u2").tobytes() if wide else data
        setattr(palette, f"{colour}PaletteColorLookupTableData", data)
        setattr(palette, f"{colour}PaletteColorLookupTableDescriptor", ds.RedPaletteColorLookupTableDescriptor)
    return palette


def smallest_dtype(bits: int, signed: int) -> np.dtype:
    """Return the smallest integer type for `bits` declared bits (not for the values: a series must have one type)."""
    size = 1 if bits <= 8 else 2 if bits <= 16 else 4
    return np.dtype(f"{'i' if signed else 'u'}{size}")
