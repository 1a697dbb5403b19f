"""Read lookup tables: the modality LUT, which gives values their meaning, and the VOI LUT, which shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from pydicom.dataset import Dataset

from pipeline.dicom.decode.attributes import LookupTable
from pipeline.dicom.decode.fields import malformed, read_first_item, read_integer, read_items, read_numbers, read_value
from pipeline.dicom.decode.vendors import Assumed
from pipeline.errors import Rejected

MAX_ENTRIES = 65536
_MOST_TABLES = 8  # of a VOI LUT Sequence
_MOST_BITS = 64
_UNLIMITED = (-math.inf, math.inf)


class _Raw(NamedTuple):
    """A table as written: the first value and the bits of its descriptor, and its entries."""

    first: int
    bits: int
    values: np.ndarray


def read_modality_lut(ds: Dataset) -> LookupTable | None:
    """Return the modality LUT, None where the image has none (PS3.3 C.11.1.1.1).

    Raises:
        Rejected: CORRUPT_HEADER, the table is incomplete, so the values have no meaning.
    """
    raw = _read_raw(ds, "ModalityLUTSequence")
    if raw is None:
        if read_first_item(ds, "ModalityLUTSequence") is not None:
            raise malformed("LUTData", "a modality LUT needs both LUTDescriptor and LUTData")
        return None
    if not 8 <= raw.bits <= 16:
        raise malformed("LUTDescriptor", "a table must have entries of 8 to 16 bits")
    # The descriptor's VR is US or SS. With the wrong one a negative first value appears as 65536 more than it is.
    signed = read_value(ds, "PixelRepresentation") == 1
    return LookupTable.pack(_signed(raw.first) if signed else raw.first, raw.bits, raw.values)


def read_voi_luts(ds: Dataset, inputs: tuple[float, float], assumed: list[str]) -> tuple[LookupTable, ...]:
    """Return the VOI LUTs, which are alternatives; () where the image has none.

    Args:
        ds: the data set.
        inputs: least and greatest possible output of the modality step.
        assumed: receives VOI_LUT_SIGN and VOI_LUT_BITS where the descriptor says something else (`vendors.SOURCES`).
    """
    items = read_items(ds, "VOILUTSequence")
    raws = [_raw_table(ds, item) for item in items[:1]]
    for item in items[1:_MOST_TABLES]:
        with suppress(Rejected):  # the first one is enough
            raws.append(_raw_table(ds, item))
    return tuple(_voi_lut(raw, inputs, assumed) for raw in raws if raw is not None)


def _voi_lut(raw: _Raw, inputs: tuple[float, float], assumed: list[str]) -> LookupTable:
    first, bits = _first_mapped(raw, inputs), int(raw.values.max()).bit_length() or raw.bits
    assumed += [Assumed.VOI_LUT_SIGN] if first != raw.first else []
    assumed += [Assumed.VOI_LUT_BITS] if bits != raw.bits else []
    return LookupTable.pack(first, bits, raw.values)


def input_range(ds: Dataset, values: Mapping[str, Any]) -> tuple[float, float]:
    """Return the possible output of the modality step, the input of the VOI LUT (PS3.3 C.11.2.1.1)."""
    if values["modality_lut"] is not None:
        return 0.0, 65535.0  # modality LUT entries are unsigned
    stored, signed = read_integer(ds, "BitsStored"), read_integer(ds, "PixelRepresentation") == 1
    if stored is None or not 1 <= stored <= _MOST_BITS:  # an impossible number is refused with the pixels
        return _UNLIMITED
    low, high = (-(2 ** (stored - 1)), 2 ** (stored - 1) - 1) if signed else (0, 2**stored - 1)
    ends = [end * slope + add for slope, add in (values["rescale"] or ((1.0, 0.0),)) for end in (low, high)]
    return min(ends), max(ends)


def _first_mapped(raw: _Raw, inputs: tuple[float, float]) -> int:
    """Return the first value mapped: signed if the input may be negative, unless only the other reading meets it."""
    readings = [_signed(raw.first), raw.first & 0xFFFF]
    if inputs[0] >= 0:
        readings.reverse()
    return next((first for first in readings if _meets(first, len(raw.values), inputs)), readings[0])


def _meets(first: int, length: int, inputs: tuple[float, float]) -> bool:
    return first <= inputs[1] and first + length - 1 >= inputs[0]


def _signed(value: int) -> int:
    value &= 0xFFFF
    return value - 65536 if value > 32767 else value


def _read_raw(ds: Dataset, sequence: str) -> _Raw | None:
    item = read_first_item(ds, sequence)
    return None if item is None else _raw_table(ds, item)


def _raw_table(ds: Dataset, item: Dataset) -> _Raw | None:
    descriptor, data = read_numbers(item, "LUTDescriptor", 3), read_value(item, "LUTData")
    if descriptor is None or data is None:
        return None
    length, first, bits = (int(value) for value in descriptor)
    length &= 0xFFFF  # 0 means 65536, and more than 32767 appear negative where the descriptor was written as SS
    return _Raw(first, bits & 0xFFFF, _entries(ds, data, length or MAX_ENTRIES))


def _entries(ds: Dataset, data: Any, length: int) -> np.ndarray:
    # LUTData may be OW (bytes in the file's byte order) or US; 8-bit tables are stored packed by some devices.
    if isinstance(data, bytes):
        order = ">" if ds.original_encoding[1] is False else "<"
        wide = len(data) >= 2 * length
        values = np.frombuffer(data[: 2 * length if wide else length], dtype=f"{order}u2" if wide else "u1")
    else:
        values = np.asarray(data if isinstance(data, Sequence) else [data], dtype=np.int64) & 0xFFFF
    if len(values) < length:
        raise malformed("LUTData", f"the descriptor declares {length} entries and the data holds {len(values)}")
    return values[:length].astype(np.uint16)
