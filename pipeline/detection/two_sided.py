"""The two-sided score: how far a slice's score lies from the middle of normal ones, on either side.

A lesion that is smoother than the tissue around it is reconstructed *better* than normal, and its residual is lower.
Turning the sign after a look at the labels would be cheating; |s - median| / MAD, with constants of validate normals,
is a score of its own: it needs no label, knows no preferred side, and is followed by an ordinary one-sided p-value. The
constants may be rough, since calibration uses other normals: they cost power, never the guarantee.

It is taken of slices, before they are aggregated: the highest of many slices hides a low one. So slices, series and
studies carry the same kind of number, and the calibration unit, whichever it is, is scored as a new scan will be.
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

    median: float = Field(description="of the raw scores of validate normals")
    mad: float = Field(gt=0, description="median absolute deviation from it, not rescaled to a standard deviation")
    slices: int = Field(ge=1, description="slices behind them")
    patients: int = Field(ge=1, description="patients behind those")

    @classmethod
    def fit(cls, scores: Iterable[float], patient_ids: Iterable[str]) -> TwoSided:
        """Return the constants of normal slices; NaN scores (no body) are left out.

        Raises:
            TooFewNormals: fewer than `LEAST` slices have a score.
            ConfigError: more than half of the scores are equal, so that the MAD is 0.
        """
        found = [(score, patient) for score, patient in zip(scores, patient_ids, strict=True) if np.isfinite(score)]
        if len(found) < LEAST:
            raise TooFewNormals(len(found), LEAST, "A two-sided score (slices of the validate set)")
        values = np.array([score for score, _ in found])
        median = float(np.median(values))
        mad = float(np.median(np.abs(values - median)))
        if mad == 0:
            raise ConfigError(
                f"More than half of the {len(values)} validate scores equal {median:.4g}: their MAD is 0, and a "
                "two-sided score would divide by it. Use `transform: none`, or look at the model."
            )
        return cls(median=median, mad=mad, slices=len(values), patients=len({patient for _, patient in found}))

    def apply(self, scores: Tensor) -> Tensor:
        """Return |s - median| / MAD of raw scores [B]; NaN stays NaN."""
        return (scores - self.median).abs() / self.mad

    def apply_values(self, scores: np.ndarray) -> np.ndarray:
        """Return the same of an array."""
        return np.abs(np.asarray(scores, np.float64) - self.median) / self.mad
