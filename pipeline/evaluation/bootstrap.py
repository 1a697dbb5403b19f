"""Patient bootstrap: patients are drawn with all their units, with replacement, and statistics are computed from
weights.

Units of one patient are not independent, so a patient enters a resample with all units or not at all. By
default patients with at least one abnormal unit and patients with none are drawn separately (each stratum keeps its
number of patients), because the number of diseased patients is fixed by the design of a test set and not by chance. A
stratum of one patient would never vary, so then all patients are drawn together. Resamples that lack a class are
left out and counted.

Intervals are BCa (bias-corrected and accelerated; Efron, JASA 1987, 82:171), the acceleration from a jackknife over
patients, or over 200 groups of patients where there are more. In simulations with AUROC near 0.92 and 30 patients BCa
covered 94 % and plain percentiles 87 %. If the correction is undefined, the percentile interval is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from pipeline.config import Config
from pipeline.errors import EmptySelection
from pipeline.evaluation.config import EvaluationConfig

CELLS_AT_ONCE = 200_000  # cells per block of resamples: temporaries of 1.6 MB fit into the processor's cache
JACKKNIFE_GROUPS = 200

Statistic = Callable[[np.ndarray], np.ndarray]  # patient weights [r, P] -> [r, K], vectorised over rows


class Estimate(Config):
    """A number with its interval.

    Attributes:
        value: the statistic on the sample itself.
        low, high: bounds of the interval; None if it is not available; `note` says why.
        resamples: resamples behind the interval; `degenerate` more lacked a class and were left out.
    """

    value: float
    low: float | None = None
    high: float | None = None
    resamples: int = 0
    degenerate: int = 0
    note: str = ""

    def text(self, digits: int = 3) -> str:
        """Return `0.812 (0.760 to 0.858)`."""
        if self.low is None or self.high is None:
            return f"{self.value:.{digits}f} (no interval)"
        return f"{self.value:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


@dataclass(frozen=True, slots=True)
class Sampled:
    """K statistics of the sample, of every resample and of every jackknife sample; NaN if a class is missing.

    Attributes:
        values: float64 [K].
        replicates: float64 [R, K].
        jackknife: float64 [G, K].
    """

    values: np.ndarray
    replicates: np.ndarray
    jackknife: np.ndarray

    def difference(self, first: int, second: int) -> Sampled:
        """Return statistic `first` minus `second`, paired: both come from the same resamples."""
        parts = (self.values[None], self.replicates, self.jackknife)
        value, replicates, jackknife = (part[:, [first]] - part[:, [second]] for part in parts)
        return Sampled(value[0], replicates, jackknife)

    @staticmethod
    def mean(parts: Sequence[Sampled]) -> Sampled:
        """Return the mean of the same statistics over samples without shared patients, each resampled separately.

        Leaving out a patient changes only its own part, so the jackknife samples of all parts are concatenated.
        """
        values = np.mean([part.values for part in parts], axis=0)
        left_out = [values + (part.jackknife - part.values) / len(parts) for part in parts]
        return Sampled(values, np.mean([part.replicates for part in parts], axis=0), np.concatenate(left_out))

    @staticmethod
    def join(parts: Sequence[Sampled]) -> Sampled:
        """Concatenate the statistics of several samplings by the same bootstrap."""
        return Sampled(
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.replicates for part in parts], axis=1),
            np.concatenate([part.jackknife for part in parts], axis=1),
        )


@dataclass(frozen=True, slots=True)
class PatientBootstrap:
    """Resamples of the patients.

    Attributes:
        weights: float32 [R, P], how often each patient occurs in each resample.
        left_out: float32 [G, P], 0 for patients left out of a jackknife sample, else 1.
        scheme: description of the drawing for the report.
        confidence: coverage of the intervals.
    """

    weights: np.ndarray
    left_out: np.ndarray
    scheme: str
    confidence: float = 0.95

    @classmethod
    def draw(cls, strata: np.ndarray, config: EvaluationConfig) -> PatientBootstrap:
        """Draw `config.resamples` resamples of the patients whose stratum codes are `strata` [P].

        Deterministic in `config.seed` and the order of the patients.

        Raises:
            EmptySelection: fewer than two patients.
        """
        patients = len(strata)
        if patients < 2:
            raise EmptySelection(
                f"The selection has {patients} patient(s), but intervals need at least 2. Add patients."
            )
        codes, sizes = np.unique(strata, return_counts=True)
        stratified = config.stratify and len(codes) > 1 and int(sizes.min()) > 1
        groups = [np.flatnonzero(strata == code) for code in codes] if stratified else [np.arange(patients)]
        rng = np.random.default_rng(config.seed)
        weights = np.zeros((config.resamples, patients), dtype=np.float32)
        for members in groups:
            weights[:, members] = _counts(rng, len(members), config.resamples)
        how = "stratified by whether a patient has an abnormal unit" if stratified else "not stratified"
        scheme = f"BCa, {config.resamples} resamples of {patients} patients, {how}"
        return cls(weights, _leave_out(rng.permutation(patients)), scheme, config.confidence)

    def sample(self, statistic: Statistic, row_cells: int) -> Sampled:
        """Evaluate `statistic` on the sample, on all resamples and on the jackknife, in blocks of bounded memory.

        Args:
            statistic: patient weights [r, P] -> [r, K].
            row_cells: number of array cells that one row needs inside `statistic`; determines the block size.
        """
        rows = np.concatenate([np.ones_like(self.weights[:1]), self.weights, self.left_out])
        step = max(1, CELLS_AT_ONCE // max(row_cells, 1))
        out = np.concatenate([statistic(rows[i : i + step]) for i in range(0, len(rows), step)])
        end = 1 + len(self.weights)
        return Sampled(out[0], out[1:end], out[end:])

    def estimates(self, sampled: Sampled) -> list[Estimate]:
        """Return one `Estimate` for each of the K statistics."""
        columns = zip(sampled.values, sampled.replicates.T, sampled.jackknife.T, strict=True)
        return [self._estimate(float(value), replicates, jackknife) for value, replicates, jackknife in columns]

    def _estimate(self, value: float, replicates: np.ndarray, jackknife: np.ndarray) -> Estimate:
        usable = replicates[np.isfinite(replicates)]
        lost = len(replicates) - len(usable)
        if len(usable) < max(2, len(replicates) // 2):
            note = f"{lost} of {len(replicates)} resamples lacked a class"
            return Estimate(value=value, resamples=len(usable), degenerate=lost, note=note)
        low, high = np.quantile(usable, bca_levels(value, usable, jackknife, self.confidence))
        note = "no width: the sample has no variation, which does not mean certainty" if low == high else ""
        return Estimate(value=value, low=low, high=high, resamples=len(usable), degenerate=lost, note=note)


def bca_levels(value: float, replicates: np.ndarray, jackknife: np.ndarray, confidence: float) -> np.ndarray:
    """Return the quantile levels of the BCa interval (Efron and Tibshirani 1993, section 14.3), or plain percentiles if
    undefined.

    Args:
        value: statistic of the sample.
        replicates: finite replicates [R].
        jackknife: statistic without each patient or group [G]; NaN entries are ignored.
    """
    plain = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    bias, acceleration = _corrections(value, replicates, jackknife)
    shifted = bias + norm.ppf(plain)
    return norm.cdf(bias + shifted / (1 - acceleration * shifted))


def bca_tails(value: float, replicates: np.ndarray, jackknife: np.ndarray, threshold: float) -> tuple[float, float]:
    """Return the one-sided p-values of "the statistic is at most `threshold`" and "it is at least `threshold`".

    Each is the level at which that bound of the BCa interval would be at the threshold, the inverse of `bca_levels`, so
    p-values and intervals are consistent. One replicate is added on either side, so no p-value is 0.

    Args:
        value, replicates, jackknife: as for `bca_levels`.
        threshold: threshold of the hypothesis.
    """
    bias, acceleration = _corrections(value, replicates, jackknife)
    counts = np.array([np.sum(replicates <= threshold), np.sum(replicates >= threshold)])
    least = 1 / (len(replicates) + 2)
    reach = norm.ppf((counts + 1) * least) * [1, -1] - bias  # the second tail expressed as the share below
    levels = norm.cdf(reach / np.maximum(1 + acceleration * reach, 1e-9) - bias)
    lower, upper = np.clip([levels[0], 1 - levels[1]], least, 1)
    return float(lower), float(upper)


def _corrections(value: float, replicates: np.ndarray, jackknife: np.ndarray) -> tuple[float, float]:
    """Return the bias correction z0 and the acceleration a; (0, 0), i.e. plain percentiles, if undefined."""
    below = (
        np.mean(replicates < value) + np.mean(replicates <= value)
    ) / 2  # ties count half, since rank metrics have many
    deviation = (
        np.nanmean(jackknife) - jackknife[np.isfinite(jackknife)] if np.isfinite(jackknife).any() else np.zeros(1)
    )
    spread = float(np.sum(deviation**2))
    if not 0 < below < 1 or spread == 0:
        return 0.0, 0.0
    return float(norm.ppf(below)), float(np.sum(deviation**3)) / (6 * spread**1.5)


def _counts(rng: np.random.Generator, patients: int, resamples: int) -> np.ndarray:
    """Return how often each of `patients` is drawn in each resample, [R, P]."""
    drawn = rng.integers(patients, size=(resamples, patients)) + patients * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * patients).reshape(resamples, patients)


def _leave_out(shuffled: np.ndarray) -> np.ndarray:
    """Return weights [G, P] that leave out one group each; groups are single patients up to 200 patients."""
    groups = np.array_split(shuffled, min(len(shuffled), JACKKNIFE_GROUPS))
    weights = np.ones((len(groups), len(shuffled)), dtype=np.float32)
    for row, members in enumerate(groups):
        weights[row, members] = 0
    return weights
