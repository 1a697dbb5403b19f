"""Recognise the same object in another transfer syntax, which a sender may choose for every association."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRBigEndian

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.source import guard, open_dataset, quietly
from pipeline.dicom.intake.sandbox import DecodeWorkers
from pipeline.errors import Rejected, RejectionCode

# Elements that follow from the encoding (PS3.5 8.2, PS3.3 C.7.6.3); what the pixels are is compared apart.
_ENCODING = frozenset({"PhotometricInterpretation", "PlanarConfiguration", "SpecificCharacterSet"})
_PIXELS, _META = 0x7FE0, 0x0002


def is_same_object(one: Path, other: Path, limits: DecodeLimits) -> bool:
    """Return whether two files hold the same attributes and pixels; an unreadable one is never the same.

    Private elements are not compared: their VR, and so their value, depends on the transfer syntax. Compressed pixels
    are decoded in a worker process, which takes a second; native ones are compared as they are.
    """
    try:
        with guard(RejectionCode.CORRUPT_HEADER), quietly():
            first, second = (open_dataset(path, limits)[:2] for path in (one, other))
            if list(_public(first[0])) != list(_public(second[0])):
                return False
            if all(_is_plain(syntax) for _, syntax in (first, second)):
                return _native_pixels(first[0]) == _native_pixels(second[0])
        with DecodeWorkers(1, limits) as workers:
            left, right = workers.read(one), workers.read(other)
    except Rejected:
        return False
    return left.attributes.content_json() == right.attributes.content_json() and np.array_equal(
        left.stored, right.stored
    )


def _is_plain(syntax: UID) -> bool:
    return not syntax.is_compressed and syntax != ExplicitVRBigEndian


def _native_pixels(ds: Dataset) -> list[bytes]:
    return [bytes(ds[tag].value) for tag in sorted(ds.keys()) if tag.group == _PIXELS]


def _public(ds: Dataset) -> Iterator[tuple[int, Any]]:
    """Yield the elements of a data set that its transfer syntax does not change, with plain values."""
    for tag in sorted(ds.keys()):
        if tag.is_private or tag.group in (_PIXELS, _META) or tag.element == 0:
            continue
        element = ds[tag]
        if element.keyword in _ENCODING or element.keyword == "DataSetTrailingPadding":
            continue
        value = element.value
        if element.VR == "SQ":
            yield int(tag), [list(_public(item)) for item in value]
        else:
            yield int(tag), value if isinstance(value, bytes) else str(value)
