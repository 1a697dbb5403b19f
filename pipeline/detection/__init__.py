"""Detection, from a model to scores, p-values and flags; library users start with `load_detector`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.detection.detector import Detector
    from pipeline.detection.stored_detector import load_detector, save_detector

__all__ = ["Detector", "load_detector", "save_detector"]


def __getattr__(name: str) -> Any:
    """Import the detector, and with it torch, only on access, since calibration alone needs neither."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.detection import stored_detector

    return getattr(stored_detector, name)
