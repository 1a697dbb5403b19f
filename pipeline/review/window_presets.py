"""Standard display windows of each modality: (name, centre, width) in Hounsfield units for CT."""

from __future__ import annotations

from typing import Any

from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.content import content_of
from pipeline.types import SliceRef

CT_WINDOWS = (
    ("soft tissue", 40.0, 400.0),
    ("lung", -600.0, 1500.0),
    ("bone", 400.0, 1800.0),
    ("brain", 40.0, 80.0),
    ("subdural", 75.0, 215.0),
)
HOUNSFIELD = "HU"
_RESCALE_TYPES = ("", HOUNSFIELD)  # Rescale Type is optional where the output is HU (PS3.3 C.8.2.1.1.3)


def presets(ref: SliceRef) -> list[dict[str, Any]]:
    """Return the named windows of a slice's modality; only Hounsfield units are comparable between scanners."""
    if unit(ref) != HOUNSFIELD:
        return []
    return [{"name": name, "centre": centre, "width": width} for name, centre, width in CT_WINDOWS]


def unit(ref: SliceRef) -> str:
    """Return the unit of a slice's physical values: HU in CT with a rescale to them, "" if it is not known."""
    attributes = InstanceAttributes.from_json(ref.attributes)
    is_hounsfield = (
        attributes.modality == "CT"
        and bool(attributes.rescale)
        and attributes.rescale_type.upper() in _RESCALE_TYPES
        and not content_of(attributes)
    )
    return HOUNSFIELD if is_hounsfield else ""
