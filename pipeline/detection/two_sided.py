"""The two-sided score: the distance of a slice's score from the median of normal ones, on either side.

A lesion that is smoother than the tissue around it is reconstructed *better* than normal, and its residual is lower.
Flipping the sign after seeing the labels would be cheating; |s - median| / MAD, with constants from validate normals,
is a separate score: it needs no labels, prefers no side, and is followed by an ordinary one-sided p-value. The
constants may be imprecise, since calibration uses other normals: this costs power, never the guarantee.

It is applied to slices before aggregation, since the highest of many slices would hide a low one. So slices, series and
studies have the same kind of score, and calibration units are scored like new scans.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from pydantic import Field
from torch import Tensor

from pipeline.config import Config
from pipeline.errors import ConfigError, TooFewNormals

LEAST = 10  # normal slices: with fewer, the MAD is off by a third (its relative error is about 1.17 / sqrt(n))


class TwoSided(Config):
    """Frozen constants of a two-sided score."""

    median: float = Field(description="median of the raw scores of validate normals")
    mad: float = Field(gt=0, description="median absolute deviation from it, not rescaled to a standard deviation")
    slices: int = Field(ge=1, description="number of slices behind the constants")
    patients: int = Field(ge=1, description="number of patients behind the constants")

    @classmethod
    def fit(cls, scores: Iterable[float], patient_ids: Iterable[str]) -> TwoSided:
        """Return the constants of normal slices; NaN scores (no body) are left out.

        Raises:
            TooFewNormals: fewer than `LEAST` slices have a score.
            ConfigError: more than half of the scores are equal, so the MAD is 0.
        """
        present = [(score, patient) for score, patient in zip(scores, patient_ids, strict=True) if np.isfinite(score)]
        if len(present) < LEAST:
            raise TooFewNormals(len(present), LEAST, "A two-sided score (slices of the validate set)")
        values = np.array([score for score, _ in present])
        median = float(np.median(values))
        mad = float(np.median(np.abs(values - median)))
        if mad == 0:
            raise ConfigError(
                f"More than half of the {len(values)} validate scores equal {median:.4g}, so their MAD is 0 and a "
                "two-sided score would divide by it. Set detection.transform to none, or check the model."
            )
        return cls(median=median, mad=mad, slices=len(values), patients=len({patient for _, patient in present}))

    def apply(self, scores: Tensor) -> Tensor:
        """Return |s - median| / MAD of raw scores [B]; NaN stays NaN."""
        return (scores - self.median).abs() / self.mad

    def apply_values(self, scores: np.ndarray) -> np.ndarray:
        """Return the same of an array."""
        return np.abs(np.asarray(scores, np.float64) - self.median) / self.mad
