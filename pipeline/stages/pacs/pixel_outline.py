"""Pixel threshold of a run's outlines, as chosen by its evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.detection.conformal import Calibration
from pipeline.errors import ArtefactError
from pipeline.stages.run.run_folder import RunFolder

USUAL_PIXEL_ALPHA = 0.01


@dataclass(frozen=True, slots=True)
class PixelOutline:
    """On average, at most a share `alpha` of a normal patient's in-body pixels is above `threshold`."""

    alpha: float
    threshold: float


def pixel_outline(
    calibration: Calibration | None, folder: RunFolder, alpha: float | None = None
) -> PixelOutline | None:
    """Return the threshold for `alpha`, or None if the calibration has no pixel thresholds.

    Args:
        calibration: calibration of the run's detector.
        folder: folder of the run.
        alpha: one of the calibrated alphas; by default the one chosen on develop masks, else the one nearest to 1 %.

    Raises:
        ConfigError: the alpha is not one of the calibrated ones.
    """
    pixels = None if calibration is None else calibration.pixels
    if pixels is None:
        return None
    alpha = _chosen(folder, pixels.alphas) if alpha is None else alpha
    return PixelOutline(alpha, pixels.threshold(alpha))


def _chosen(folder: RunFolder, alphas: Sequence[float]) -> float:
    try:
        chosen = float(folder.read("evaluation/pixel_alpha.json")["alpha"])
    except (ArtefactError, KeyError, TypeError, ValueError):
        chosen = USUAL_PIXEL_ALPHA
    return min(alphas, key=lambda tabled: abs(tabled - chosen))
