"""What makes an instance the same instance again: hashes over content, and what a series' instances share."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pipeline.dicom.attributes import InstanceAttributes
from pipeline.errors import Rejected, RejectionCode

# What places the pixels in the patient and gives them their physical meaning.
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
)


def content_hash(attributes: InstanceAttributes, pixel_key: str) -> str:
    """Return SHA-256 over decoded pixels and geometry, independent of the transfer syntax.

    The identity part (patient, study, series) is compared by the row's own keys: a hash over pseudonyms would change
    with the pseudonym key. Raises Rejected when a number is not finite.
    """
    values = attributes.to_json()
    return _digest([pixel_key, {name: values[name] for name in GEOMETRY_FIELDS if name in values}])


def attributes_hash(attributes: InstanceAttributes) -> str:
    """Return SHA-256 over all attributes that a lossless transcoding leaves alone; Rejected as `content_hash`."""
    return _digest(attributes.content_json())


def _digest(value: Any) -> str:
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise Rejected(
            RejectionCode.CORRUPT_HEADER, "A number of the header is infinite or not a number. Repair the header."
        ) from None
    return hashlib.sha256(text.encode()).hexdigest()


def draw_of(patient_id: str) -> float:
    """Return the uniform number in [0, 1) of a patient pseudonym at first sight: its first 52 bits."""
    return int(patient_id[:13], 16) / 16**13


def shared_attributes(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes that both have with equal values."""
    return {name: value for name, value in one.items() if name in other and other[name] == value}
