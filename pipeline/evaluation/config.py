"""Configuration of an evaluation: resamples, operating points, pixel histograms."""

from __future__ import annotations

from pydantic import Field, field_validator

from pipeline.config import Config


class EvaluationConfig(Config):
    """Settings of `nightread evaluate`; all committed results were made with the defaults."""

    resamples: int = Field(2000, ge=100, le=100_000, description="patient bootstrap resamples")
    seed: int = Field(0, ge=0, description="seed of the resamples; the same seed gives the same intervals")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="coverage of every interval")
    stratify: bool = Field(True, description="resample patients with and without an abnormal unit separately")
    specificities: tuple[float, ...] = Field((0.90, 0.95, 0.99), description="operating points of the sensitivity")
    central: tuple[float, float] = Field(
        (0.3, 0.7), description="open range of relative_position of the central subset"
    )
    matched: tuple[str, ...] = Field(
        (), description="trivial controls, such as noise, for which the AUROC is also given between units alike in them"
    )
    matched_strata: int = Field(10, ge=2, description="quantile strata of such a control")
    smallest_group: int = Field(5, ge=2, description="fewest patients of each class for an AUROC of a subgroup")
    pro_fpr: float = Field(0.3, gt=0, le=1, description="false-positive rate up to which PRO is integrated")
    pixel_values: int = Field(4_000_000, ge=1000, description="pixel values kept exactly per map before compression")
    pixel_cells: int = Field(4096, ge=64, description="histogram cells of the resamples; 4 x as many keys per patient")

    @field_validator("specificities")
    @classmethod
    def _inside_unit_interval(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values or not all(0 < value < 1 for value in values):
            raise ValueError("needs one or more numbers strictly between 0 and 1")
        return tuple(sorted(values))

    @field_validator("central")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] < value[1] <= 1:
            raise ValueError("needs two increasing numbers from 0 to 1")
        return value
