"""From a model of normality to scores, p-values and flags. `Detector` is the door for those who use it as a library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.detection.detector import Detector

__all__ = ["Detector"]


def __getattr__(name: str) -> Any:
    """Import the detector, and torch with it, only when it is asked for: calibration alone needs neither."""
    if name != "Detector":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.detection.detector import Detector

    return Detector
