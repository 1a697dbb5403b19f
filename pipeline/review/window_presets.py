"""Standard display windows of each modality: (name, centre, width) in Hounsfield units for CT."""

from __future__ import annotations

from typing import Any

from pipeline.types import SliceRef

CT_WINDOWS = (
    ("soft tissue", 40.0, 400.0),
    ("lung", -600.0, 1500.0),
    ("bone", 400.0, 1800.0),
    ("brain", 40.0, 80.0),
    ("subdural", 75.0, 215.0),
)
UNITS = {"CT": "HU"}


def presets(ref: SliceRef) -> list[dict[str, Any]]:
    """Return the named windows of a slice's modality; only Hounsfield units are comparable between scanners."""
    if ref.attributes.get("modality") != "CT":
        return []
    return [{"name": name, "centre": centre, "width": width} for name, centre, width in CT_WINDOWS]


def unit(ref: SliceRef) -> str:
    """Return the unit of a slice's physical values, "" if unknown."""
    return UNITS.get(str(ref.attributes.get("modality", "")), "")
