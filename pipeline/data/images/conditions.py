"""What a conditional method may know of an image beside its pixels: a few allow-listed attributes and the position.

Everything comes from the files, never from a label, so that a slice is told of in the same way by the catalogue and by
a file that has just arrived. What the files do not say is left out: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.types import SliceRef

WORDS = ("modality", "body_part", "view", "sex")


def about(attributes: Mapping[str, Any], position: float | None) -> dict[str, Any]:
    """Return the known ones of modality, body_part, view, sex, age_band and relative_position.

    Args:
        attributes: `InstanceAttributes.to_json()` of the image.
        position: 0..1 along the series by its geometry, or None for a single image.
    """
    known = {name: attributes[name] for name in WORDS if attributes.get(name)}
    if attributes.get("age_years") is not None:
        known["age_band"] = InstanceAttributes(age_years=attributes["age_years"]).age_band
    return known if position is None else known | {"relative_position": position}


def about_slice(ref: SliceRef) -> dict[str, Any]:
    """Return what the catalogue says of a slice."""
    return about(ref.attributes, ref.geometric_position)
