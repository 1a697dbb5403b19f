"""Hashes that recognise an instance when it arrives again, and the attributes that instances of a series share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pipeline.dicom.decode.attributes import ENCODING_FIELDS, InstanceAttributes
from pipeline.dicom.decode.content import Content
from pipeline.errors import Rejected, RejectionCode

# Attributes that give the pixels their position in the patient and their physical meaning.
GEOMETRY_FIELDS = (
    "sop_class_uid",
    "modality",
    "laterality",
    "rows",
    "columns",
    "frames",
    "pixel_spacing_mm",
    "pixel_spacings_mm",
    "imager_pixel_spacing_mm",
    "slice_thickness_mm",
    "spacing_between_slices_mm",
    "gantry_tilt_degrees",
    "positions",
    "orientation",
    "orientations",
    "waveforms",
)


def content_hash(attributes: InstanceAttributes, pixel_key: str) -> str:
    """Return the SHA-256 of decoded pixels and geometry, independent of the transfer syntax.

    Patient, study and series are compared by the row's own keys instead: a hash over pseudonyms would change with the
    pseudonym key. Raises Rejected when a number is not finite.
    """
    return _content_hash(attributes.to_json(), pixel_key)


def attributes_hash(attributes: InstanceAttributes) -> str:
    """Return the SHA-256 of all attributes that lossless transcoding does not change; Rejected as `content_hash`."""
    return _attributes_hash(attributes.to_json())


def hashes(values: Mapping[str, Any], pixel_key: str) -> tuple[str, str]:
    """Return `content_hash` and `attributes_hash` of attributes that are JSON already."""
    return _content_hash(values, pixel_key), _attributes_hash(values)


def _content_hash(values: Mapping[str, Any], pixel_key: str) -> str:
    return _digest([pixel_key, {name: values[name] for name in GEOMETRY_FIELDS if name in values}])


def _attributes_hash(values: Mapping[str, Any]) -> str:
    return _digest({name: value for name, value in values.items() if name not in ENCODING_FIELDS})


def _digest(value: Any) -> str:
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise Rejected(
            RejectionCode.CORRUPT_HEADER,
            "A number in the header is infinite or NaN. Correct the header at its source.",
        ) from None
    return hashlib.sha256(text.encode()).hexdigest()


def draw_of(patient_id: str) -> float:
    """Return a uniform number in [0, 1) for a new patient: the first 52 bits of the pseudonym."""
    return int(patient_id[:13], 16) / 16**13


def shared_attributes(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes that both have with equal values; of different contents the series is mixed.

    A content is absent where the values are plain anatomy, so one localiser among slices must not vanish here.
    """
    shared = {name: value for name, value in one.items() if name in other and other[name] == value}
    return shared if one.get("content") == other.get("content") else {**shared, "content": Content.MIXED.value}
