"""Policy of the tests of drift (`configs/monitoring/drift.yaml`)."""

from __future__ import annotations

from pydantic import Field

from pipeline.config import Config


class DriftPolicy(Config):
    """Error rates and streams of the tests of drift."""

    alpha: float = Field(
        0.01, gt=0, lt=1, description="probability that any stream ever raises a false alarm, over all nights"
    )
    least_scans: int = Field(30, ge=2, description="a scanner or protocol is watched from so many scans on")
    arl0_scans: float = Field(10_000, ge=100, description="CUSUM: scans between two false signals, on average")
    allowance: float = Field(0.25, gt=0, le=2, description="CUSUM: k, half the shift that it is tuned for")
    shift: float = Field(0.5, gt=0, description="CUSUM: shift, in standard deviations, whose delay is printed")
    recent_nights: int = Field(14, ge=1, description="a CUSUM signal is reported for so many nights")
    attribution_alpha: float = Field(0.05, gt=0, lt=1, description="family-wise level of the tests that say what moved")
