"""Check of the calibration: realised false-positive rate at the threshold, and p-values of normals against uniform."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import beta, betabinom, binomtest

from pipeline.config import Config
from pipeline.errors import ConfigError, EmptySelection
from pipeline.evaluation.bootstrap import Estimate, PatientBootstrap
from pipeline.evaluation.config import EvaluationConfig

MANY_NORMALS = 5_000  # above this, the beta envelope is used: the two differ by less than 0.002
EXCESS = 1e-3  # low, since an evaluation has several thresholds: one false warning in hundreds of reports
QQ_POINTS = 400  # enough for a figure; each point needs two quantiles of a beta-binomial


class RealisedRate(Config):
    """Share of normal units above the threshold.

    Attributes:
        rate: value with its interval.
        false_positives, normals, patients: numbers behind the rate.
        method: method of the interval.
    """

    rate: Estimate
    false_positives: int
    normals: int
    patients: int
    method: str

    @property
    def sentence(self) -> str:
        """Return one line for the report."""
        low, high = (f"{bound:.1%}" if bound is not None else "?" for bound in (self.rate.low, self.rate.high))
        return (
            f"realised false-positive rate {self.rate.value:.1%} ({low} to {high}): {self.false_positives} of "
            f"{self.normals} normal units of {self.patients} patients; {self.method}."
        )


def realised_fpr(scores: np.ndarray, patient: np.ndarray, threshold: float, config: EvaluationConfig) -> RealisedRate:
    """Return the share of normal units whose score exceeds `threshold`, with its interval.

    One unit per patient: Clopper-Pearson, exact and conservative. Several units per patient: patient bootstrap; but if
    none or all units are flagged, the bootstrap shows no variation, so Clopper-Pearson over patients is used instead.

    Args:
        scores: float [N] scores of normal units.
        patient: id or code of each unit's patient [N].
        threshold: a unit is flagged when its score exceeds it.
        config: confidence, resamples and seed.

    Raises:
        EmptySelection: there are no normal units.
    """
    scores = np.asarray(scores, float)
    if not len(scores):
        raise EmptySelection(
            "There are no normal units, which a false-positive rate needs. Label normal scans in this set."
        )
    codes = np.unique(np.asarray(patient), return_inverse=True)[1]
    flagged, patients = scores > threshold, int(codes.max()) + 1
    hits, total = np.bincount(codes, flagged, patients), np.bincount(codes, minlength=patients)
    count, certain = int(flagged.sum()), bool(flagged.all() or not flagged.any())
    if patients == len(scores) or certain:
        exact = binomtest(int(np.sum(hits > 0)), patients).proportion_ci(config.confidence, method="exact")
        estimate = Estimate(value=float(flagged.mean()), low=exact.low, high=exact.high)
        method = (
            "Clopper-Pearson" if patients == len(scores) else "Clopper-Pearson over patients, since units are clustered"
        )
    else:
        bootstrap = PatientBootstrap.draw(np.zeros(patients, int), config)
        sampled = bootstrap.sample(lambda w: ((w @ hits) / (w @ total))[:, None], patients)
        (estimate,) = bootstrap.estimates(sampled)
        method = "patient bootstrap, since units are clustered"
    return RealisedRate(rate=estimate, false_positives=count, normals=len(scores), patients=patients, method=method)


def excess(realised: RealisedRate, n: int, k: int) -> str:
    """Return a warning if more normals were flagged than is plausible for exchangeable ones, else "".

    Among m new units of other patients, false alarms follow BetaBinomial(m, k, n + 1 - k), whatever the score. A chance
    below one in a thousand is reported as a difference between these normals and the calibration normals. With several
    units per patient there is no warning, since the units are not independent.

    Args:
        realised: rate of normals that were not used for calibration.
        n, k: calibration units of the threshold, and the rank of the threshold among their largest scores.
    """
    if realised.patients < realised.normals:
        return ""
    chance = float(betabinom.sf(realised.false_positives - 1, realised.normals, k, n + 1 - k))
    if chance >= EXCESS:
        return ""
    return (
        f"This is more than expected from normals like the {n} calibration units (probability {chance:.1g}): these "
        "normals differ, so the p-values are not valid for them. Calibrate on normals from this source."
    )


def p_value_quantiles(p_values: np.ndarray, n_calibration: int | None = None, confidence: float = 0.95) -> pd.DataFrame:
    """Return the sorted p-values of m normal units and the values expected of exchangeable normals, for a QQ figure.

    The i-th smallest of m uniform p-values is Beta(i, m + 1 - i). Conformal p-values share their n calibration units:
    then p_(i) = (1 + b) / (n + 1) with b ~ BetaBinomial(n, i, m + 1 - i), which is wider and approaches the beta as n
    grows. The envelope is pointwise and assumes independent units; with clustered units it is too narrow.

    Args:
        p_values: of normal units [m], in (0, 1].
        n_calibration: calibration units behind the p-values; None for the plain beta envelope.
        confidence: pointwise coverage of the envelope.

    Returns:
        Columns rank (i), expected, observed, low, high; at most 400 rows, including all of the smallest p-values.

    Raises:
        EmptySelection: there are no p-values.
        ConfigError: a p-value outside (0, 1], or fewer than one calibration unit.
    """
    observed = np.sort(np.asarray(p_values, float))
    m = len(observed)
    if not m:
        raise EmptySelection("There are no p-values of normal units. Score normal units with a calibrated detector.")
    if not np.all((observed > 0) & (observed <= 1)):
        raise ConfigError(
            f"{int(np.sum(~((observed > 0) & (observed <= 1))))} p-values are outside (0, 1]. Score the scans again."
        )
    if n_calibration is not None and n_calibration < 1:
        raise ConfigError(
            f"n_calibration is {n_calibration}; at least one calibration unit is needed. Calibrate the detector first."
        )
    rank = _ranks(m)
    low, high = _envelope(np.array([1 - confidence, 1 + confidence]) / 2, rank, m, n_calibration)
    frame = {"rank": rank, "expected": rank / (m + 1), "observed": observed[rank - 1], "low": low, "high": high}
    return pd.DataFrame(frame)


def _envelope(levels: np.ndarray, rank: np.ndarray, m: int, n_calibration: int | None) -> np.ndarray:
    """Return quantiles [levels, ranks] of the i-th smallest of m p-values."""
    if n_calibration is None or n_calibration > MANY_NORMALS:
        return beta.ppf(levels[:, None], rank, m + 1 - rank)
    counts = np.arange(n_calibration + 1)
    above = [np.cumsum(betabinom.pmf(counts, n_calibration, i, m + 1 - i)).searchsorted(levels) for i in rank]
    return (1 + np.minimum(np.array(above).T, n_calibration)) / (n_calibration + 1)


def _ranks(m: int) -> np.ndarray:
    """Return all ranks 1..m if they are few, else all of the smallest and evenly spaced ones of the rest."""
    if m <= QQ_POINTS:
        return np.arange(1, m + 1)
    few = np.arange(1, QQ_POINTS // 4 + 1)
    return np.unique(np.concatenate([few, np.linspace(1, m, QQ_POINTS - len(few)).round().astype(int)]))
