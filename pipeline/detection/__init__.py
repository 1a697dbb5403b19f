"""From a model to scores, p-values and flags. `load_detector` is the door for those who use it as a library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.detection.detector import Detector
    from pipeline.detection.stored_detector import load_detector, save_detector

__all__ = ["Detector", "load_detector", "save_detector"]


def __getattr__(name: str) -> Any:
    """Import the detector, and torch with it, only when it is asked for: calibration alone needs neither."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.detection import stored_detector

    return getattr(stored_detector, name)
