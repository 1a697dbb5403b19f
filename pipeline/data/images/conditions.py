"""Conditions for conditional methods: a few allow-listed attributes of an image and its position.

Everything comes from the files and never from a label, so that the catalogue and a file that has just arrived describe
a slice in the same way. Attributes that the files do not give are omitted; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.types import SliceRef

WORDS = ("modality", "body_part", "view", "sex")


def about(attributes: Mapping[str, Any], position: float | None) -> dict[str, Any]:
    """Return modality, body_part, view, sex, age_band and relative_position, as far as they are known.

    Args:
        attributes: `InstanceAttributes.to_json()` of the image.
        position: 0..1 along the series by its geometry, or None for a single image.
    """
    conditions = {name: attributes[name] for name in WORDS if attributes.get(name)}
    if attributes.get("age_years") is not None:
        conditions["age_band"] = InstanceAttributes(age_years=attributes["age_years"]).age_band
    return conditions if position is None else conditions | {"relative_position": position}


def about_slice(ref: SliceRef) -> dict[str, Any]:
    """Return the conditions of a slice in the catalogue."""
    return about(ref.attributes, ref.geometric_position)
