"""Conformal p-values and thresholds from held-out normals, with one independent unit per patient.

With n calibration units and k = floor(alpha (n + 1)), a score is flagged if it exceeds the k-th largest of them. The
false alarms among m new normal units then follow BetaBinomial(m, k, n + 1 - k), whatever the scores' distribution
(Vovk 2012, "Conditional validity of inductive conformal predictors"; Bates et al. 2023); ties only make them
fewer. The units must be exchangeable: several slices of one patient, or slices of diseased patients, are not,
and every table states so (`GUARANTEES`).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from pipeline.config import Config
from pipeline.detection.pixel_threshold import PixelQuantiles
from pipeline.errors import ConfigError, Rejected, RejectionCode, TooFewNormals

Design = Literal["independent", "clustered"]
GUARANTEES: dict[Design, str] = {
    "independent": "conformal",
    "clustered": "empirical, clustered, no guarantee",
}


@dataclass(frozen=True, slots=True)
class Unit:
    """One normal case of the calibrate set: a study (or a slice, if `clustered`), its patient, its raw score."""

    unit_id: str
    patient_id: str
    score: float


@dataclass(frozen=True, slots=True)
class Threshold:
    """A score above `value` is flagged.

    Attributes:
        value: the k-th largest of n calibration scores.
        alpha: the target false-positive rate.
        n, k: calibration units, and floor(alpha (n + 1)).
        expected_fpr: k / (n + 1), never above alpha.
        interval: range of the realised rate in 95 % of calibrations (Beta(k, n + 1 - k)); None without guarantee.
        guarantee: one of `GUARANTEES`.
    """

    value: float
    alpha: float
    n: int
    k: int
    expected_fpr: float
    interval: tuple[float, float] | None
    guarantee: str


class CalibrationGroup(Config):
    """The scores of the units of one group of scans (`pipeline.detection.mondrian`), among those of the calibration."""

    name: str = Field(description="attributes and their values, such as `scanner PHANTOM MR 3T, sex F`")
    scores: tuple[float, ...] = Field(min_length=1, description="raw scores of its units, ascending")


class Calibration(Config):
    """The scores of held-out normals, frozen with their detector.

    JSON: `model_dump(mode="json")` and `model_validate`, exact to the last bit.
    """

    scores: tuple[float, ...] = Field(min_length=1, description="raw scores of the units, ascending")
    design: Design = Field("independent", description="independent: one unit per patient; clustered: no guarantee")
    patients: int = Field(ge=1, description="patients behind the units")
    pixels: PixelQuantiles | None = Field(None, description="in-body residual quantiles of the same normals")
    groups: tuple[CalibrationGroup, ...] = Field((), description="the same scores by group, largest first")
    group_least: int = Field(0, ge=0, description="units from which on a group has a threshold of its own")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not all(math.isfinite(score) for score in self.scores):
            raise ValueError("a calibration score is not finite")
        if any(a > b for a, b in zip(self.scores, self.scores[1:], strict=False)):
            raise ValueError("calibration scores must be ascending")
        if self.design == "independent" and self.patients != len(self.scores):
            raise ValueError("independent units must be one per patient")
        if self.groups and sorted(score for one in self.groups for score in one.scores) != list(self.scores):
            raise ValueError("the groups must hold every calibration score once")
        return self

    @classmethod
    def fit(
        cls,
        units: Iterable[Unit],
        *,
        clustered: bool = False,
        pixels: PixelQuantiles | None = None,
        trained_on: Collection[str] = (),
        groups: Mapping[str, str] | None = None,
        group_least: int = 0,
    ) -> Calibration:
        """Calibrate on normal units; of several studies of a patient, only the one with the smallest hash is used.

        Args:
            units: in any order, which does not matter.
            clustered: keep every unit, and give up the guarantee.
            pixels: pixel quantiles to store with the scores.
            trained_on: patients that the model has seen (train, validate): none of them may be among the units.
            groups: unit id -> name of its group; None does without groups.
            group_least: units from which on a group has a threshold of its own.

        Raises:
            TooFewNormals: there are no units.
            Rejected: a score is not finite (non-finite-pixels).
            ConfigError: a unit occurs twice, or belongs to a patient that the model was trained on.
        """
        given = list(units)
        _check(given, trained_on)
        independent = given if clustered else one_per_patient(given)
        return cls(
            scores=tuple(sorted(float(unit.score) for unit in independent)),
            design="clustered" if clustered else "independent",
            patients=len({unit.patient_id for unit in independent}),
            pixels=pixels,
            groups=() if groups is None else _split(independent, groups),
            group_least=group_least,
        )

    @property
    def n(self) -> int:
        """Number of calibration units."""
        return len(self.scores)

    @property
    def guarantee(self) -> str:
        """The guarantee of the p-values, in words to print beside them."""
        return GUARANTEES[self.design] + (", pooled over all groups" if self.groups else "")

    @cached_property
    def _ascending(self) -> np.ndarray:
        return np.asarray(self.scores, dtype=np.float64)

    def p_values(self, scores: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return (1 + #{calibration >= s}) / (n + 1) for each score: float64 in [1/(n+1), 1]; NaN stays NaN."""
        values = np.asarray(scores, dtype=np.float64)
        at_least = self.n - np.searchsorted(self._ascending, values, side="left")
        return np.where(np.isnan(values), np.nan, (1 + at_least) / (self.n + 1))

    def p_value(self, score: float) -> float:
        """Return one score's p-value."""
        return float(self.p_values([score])[0])

    def threshold(self, alpha: float) -> Threshold:
        """Return the threshold for a false-positive rate of at most alpha.

        Raises:
            TooFewNormals: alpha (n + 1) < 1: there are too few normals for this rate.
        """
        from scipy.stats import beta

        k = count_allowed_exceedances(alpha, self.n)
        low, high = beta.ppf([0.025, 0.975], k, self.n + 1 - k)
        return Threshold(
            value=self.scores[self.n - k],
            alpha=alpha,
            n=self.n,
            k=k,
            expected_fpr=k / (self.n + 1),
            interval=(float(low), float(high)) if self.design == "independent" else None,
            guarantee=self.guarantee,
        )


def count_allowed_exceedances(alpha: float, n: int) -> int:
    """Return k = floor(alpha (n + 1)), with alpha taken as its decimal representation (0.29 x 100 is 29).

    Raises:
        ConfigError: alpha is not within (0, 1).
        TooFewNormals: k would be 0.
    """
    if not 0 < alpha < 1:
        raise ConfigError(f"The false-positive rate must be strictly between 0 and 1, not {alpha}.")
    exact = Fraction(repr(float(alpha)))
    k = math.floor(exact * (n + 1))
    if k < 1:
        raise TooFewNormals(n, math.ceil(1 / exact) - 1, f"A false-positive rate of {100 * alpha:g} %")
    return k


def one_per_patient(units: Iterable[Unit]) -> list[Unit]:
    """Keep one unit per patient, chosen by the hash of its id, never by its score or order."""
    groups: dict[str, list[Unit]] = defaultdict(list)
    for unit in units:
        groups[unit.patient_id].append(unit)
    return [min(group, key=lambda unit: hashlib.sha256(unit.unit_id.encode()).digest()) for group in groups.values()]


def _split(units: Iterable[Unit], groups: Mapping[str, str]) -> tuple[CalibrationGroup, ...]:
    scores: dict[str, list[float]] = defaultdict(list)
    for unit in units:
        scores[groups[unit.unit_id]].append(float(unit.score))
    largest_first = sorted(scores, key=lambda name: (-len(scores[name]), name))
    return tuple(CalibrationGroup(name=name, scores=tuple(sorted(scores[name]))) for name in largest_first)


def _check(units: Sequence[Unit], trained_on: Collection[str]) -> None:
    if not units:
        raise TooFewNormals(0, 1, "A calibration")
    if twice := [name for name, count in Counter(unit.unit_id for unit in units).items() if count > 1]:
        raise ConfigError(f"{len(twice)} calibration units occur more than once, first {twice[0]}. Give each once.")
    if leaked := {unit.patient_id for unit in units} & set(trained_on):
        raise ConfigError(
            f"{len(leaked)} calibration patients were trained on, first {min(leaked)}: their scores are too low and "
            "every threshold would be wrong. Calibrate on patients that the model has never seen."
        )
    if bad := sum(not math.isfinite(unit.score) for unit in units):
        raise Rejected(
            RejectionCode.NON_FINITE,
            f"{bad} of {len(units)} calibration scores are not finite. Exclude units without a score beforehand.",
        )
