"""Distance between the slices of a stack, measured between positions and never taken from a thickness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.dicom.decode.sequential import is_sequential
from pipeline.errors import Rejected, RejectionCode

SPACING_TOLERANCE = 0.01  # relative to the median distance between slices
ROUNDING_MM = 0.001  # positions are written as decimal strings
WRITTEN_TO_MM = (0.1, 0.01)  # precisions to which devices round positions, coarsest first
LEAST_SQUARES_MARGIN = 1.25  # the line of least squares is not quite the one with the least maximum


def rounding_mm(points: np.ndarray, normal: np.ndarray) -> float:
    """Return how far rounding may have moved a slice along the normal: some devices write positions to 0.1 mm."""
    steps = (mm for mm in WRITTEN_TO_MM if np.all(np.abs(points / mm - np.rint(points / mm)) < 1e-6))
    return next(steps, 0.0) / 2 * float(np.abs(normal).sum())


def measure_distance(
    heights: np.ndarray, rounded_mm: float, allow_gaps: bool, thicknesses: Sequence[float | None] | None = None
) -> tuple[float | None, int]:
    """Return (slice distance in mm, missing slices); the distance is None where it is irregular and that is allowed.

    Args:
        heights: of at least two slices along the normal, in order.
        rounded_mm: how far rounding may have moved a slice.
        allow_gaps: slices may be missing and distances irregular.
        thicknesses: of the slices, where distances may change on purpose (`sequential`); None for a volume.

    Raises:
        Rejected: DUPLICATE_SLICES, MISSING_SLICES or IRREGULAR_SPACING.
    """
    gaps = np.diff(heights)
    _refuse_duplicates(gaps)
    step = float(np.median(gaps))  # the median is not moved by a few gaps
    multiples = np.rint(gaps / step)  # 1 for neighbours, k + 1 where k slices are missing
    tolerance = SPACING_TOLERANCE * step + ROUNDING_MM
    even = bool(np.all(np.abs(gaps - multiples * step) <= tolerance))
    places = np.concatenate([[0.0], np.cumsum(multiples)])
    regular = multiples.min() >= 1 and (even or (rounded_mm > 0 and _fits_rounded(heights, places, rounded_mm)))
    missing = int(multiples.sum() - len(gaps)) if regular else 0
    if regular and not missing:
        return float(gaps.mean()), 0
    if thicknesses is not None and is_sequential(heights, thicknesses):
        return None, 0
    if allow_gaps:
        return (step, missing) if regular else (None, 0)
    raise _uneven(gaps, step, missing)


def _refuse_duplicates(gaps: np.ndarray) -> None:
    duplicates = int(np.sum(gaps <= ROUNDING_MM))
    if duplicates:
        of = f"{duplicates} of {len(gaps) + 1}"
        sentence = f"{of} slices have the position of another; a stack has one per position. "
        sentence += send_apart("set of positions")
        raise Rejected(RejectionCode.DUPLICATE_SLICES, sentence)


def send_apart(what: str) -> str:
    """Return the advice to send one series as several; the same UIDs would contradict what has arrived."""
    return (
        f"Send each {what} as its own series, with new Series and SOP Instance UIDs; once all images have arrived so, "
        "this series is no longer listed."
    )


def _uneven(gaps: np.ndarray, step: float, missing: int) -> Rejected:
    advice = " Set data.allow_gaps=true to use the series; otherwise it is left out."
    if missing:
        sentence = f"{missing} slices are missing from a stack with {step:.3f} mm between slices."
        return Rejected(RejectionCode.MISSING_SLICES, sentence + advice)
    sentence = (
        f"Slice spacing varies from {gaps.min():.3f} to {gaps.max():.3f} mm, over the 1 % that a volume may vary."
    )
    return Rejected(RejectionCode.IRREGULAR_SPACING, sentence + advice)


def _fits_rounded(heights: np.ndarray, places: np.ndarray, rounded_mm: float) -> bool:
    """Return whether a regular stack, rounded, gives these heights: its line leaves no more than the rounding."""
    residuals = heights - np.polyval(np.polyfit(places, heights, 1), places)
    return bool(np.ptp(residuals) / 2 <= LEAST_SQUARES_MARGIN * rounded_mm)
