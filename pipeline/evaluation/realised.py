"""Did the calibration hold? Realised false-positive rate at the threshold, and p-values of normals against uniform."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import beta, betabinom, binomtest

from pipeline.config import Config
from pipeline.errors import ConfigError, EmptySelection
from pipeline.evaluation.bootstrap import Estimate, PatientBootstrap
from pipeline.evaluation.config import EvaluationConfig

MANY_NORMALS = 5_000  # beyond, the beta envelope serves: the two differ by less than 0.002
EXCESS = 1e-3  # an evaluation states several thresholds; one false alarm in hundreds of reports is few
QQ_POINTS = 400  # a figure shows no more; the envelope of each is two quantiles of a beta-binomial


class RealisedRate(Config):
    """Share of normal units above the threshold.

    Attributes:
        rate: value with its interval.
        false_positives, normals, patients: what it rests on.
        method: how the interval was made.
    """

    rate: Estimate
    false_positives: int
    normals: int
    patients: int
    method: str

    @property
    def sentence(self) -> str:
        """One line for the report."""
        low, high = (f"{bound:.1%}" if bound is not None else "?" for bound in (self.rate.low, self.rate.high))
        return (
            f"realised false-positive rate {self.rate.value:.1%} ({low} to {high}): {self.false_positives} of "
            f"{self.normals} normal units of {self.patients} patients; {self.method}."
        )


def realised_fpr(scores: np.ndarray, patient: np.ndarray, threshold: float, config: EvaluationConfig) -> RealisedRate:
    """Return the share of normal units whose score exceeds `threshold`, with its interval.

    One unit a patient: Clopper-Pearson, exact and conservative. Several units a patient: patient bootstrap; where no
    unit or every unit is flagged the bootstrap cannot see beyond the sample; Clopper-Pearson over patients stands in.

    Args:
        scores: float [N] of normal units.
        patient: id or code of each unit's patient [N].
        threshold: a unit is flagged when its score exceeds it.
        config: confidence, resamples and seed.

    Raises:
        EmptySelection: no normal unit.
    """
    scores = np.asarray(scores, float)
    if not len(scores):
        raise EmptySelection("No normal unit was given; a false-positive rate needs some. Add normal units.")
    codes = np.unique(np.asarray(patient), return_inverse=True)[1]
    flagged, patients = scores > threshold, int(codes.max()) + 1
    hits, total = np.bincount(codes, flagged, patients), np.bincount(codes, minlength=patients)
    count, certain = int(flagged.sum()), bool(flagged.all() or not flagged.any())
    if patients == len(scores) or certain:
        exact = binomtest(int(np.sum(hits > 0)), patients).proportion_ci(config.confidence, method="exact")
        estimate = Estimate(value=float(flagged.mean()), low=exact.low, high=exact.high)
        method = (
            "Clopper-Pearson" if patients == len(scores) else "Clopper-Pearson over patients, for units are clustered"
        )
    else:
        bootstrap = PatientBootstrap.draw(np.zeros(patients, int), config)
        sampled = bootstrap.sample(lambda w: ((w @ hits) / (w @ total))[:, None], patients)
        (estimate,) = bootstrap.estimates(sampled)
        method = "patient bootstrap, for units are clustered"
    return RealisedRate(rate=estimate, false_positives=count, normals=len(scores), patients=patients, method=method)


def excess(realised: RealisedRate, n: int, k: int) -> str:
    """Say that more normals were flagged than exchangeable ones can be, or return "".

    Among m fresh units of other patients, false alarms follow BetaBinomial(m, k, n + 1 - k), whatever the score. Fewer
    than one chance in a thousand is called a difference between these normals and those that calibrated. With several
    units a patient nothing is said, since they are no independent draws.

    Args:
        realised: of normals that did not calibrate.
        n, k: of the threshold: its calibration units, and which of their largest scores it is.
    """
    if realised.patients < realised.normals:
        return ""
    chance = float(betabinom.sf(realised.false_positives - 1, realised.normals, k, n + 1 - k))
    if chance >= EXCESS:
        return ""
    return (
        f"That is more than normals like the {n} that calibrated would give (probability {chance:.1g}): these normals "
        "differ from those, and the p-values do not hold for them. Calibrate on normals of this source."
    )


def p_value_quantiles(p_values: np.ndarray, n_calibration: int | None = None, confidence: float = 0.95) -> pd.DataFrame:
    """Return the sorted p-values of m normal units against what exchangeable normals give, for a QQ figure.

    The i-th smallest of m uniform p-values is Beta(i, m + 1 - i). Conformal p-values share their n calibration units:
    then p_(i) = (1 + b) / (n + 1) with b ~ BetaBinomial(n, i, m + 1 - i), which is wider and tends to the beta as n
    grows. The envelope holds point by point and for independent units; with clustered units it is too narrow.

    Args:
        p_values: of normal units [m], in (0, 1].
        n_calibration: units behind the p-values; None for the plain beta envelope.
        confidence: pointwise coverage of the envelope.

    Returns:
        Columns rank (i), expected, observed, low, high; at most 400 rows, the smallest p-values all kept.

    Raises:
        EmptySelection: no p-value.
        ConfigError: a p-value outside (0, 1], or fewer than one calibration unit.
    """
    observed = np.sort(np.asarray(p_values, float))
    m = len(observed)
    if not m:
        raise EmptySelection("No p-value of a normal unit was given. Score normal units with a calibrated detector.")
    if not np.all((observed > 0) & (observed <= 1)):
        raise ConfigError(
            f"{int(np.sum(~((observed > 0) & (observed <= 1))))} p-values lie outside (0, 1]. Score again."
        )
    if n_calibration is not None and n_calibration < 1:
        raise ConfigError(f"n_calibration is {n_calibration}; at least one calibration unit is needed.")
    rank = _ranks(m)
    low, high = _envelope(np.array([1 - confidence, 1 + confidence]) / 2, rank, m, n_calibration)
    frame = {"rank": rank, "expected": rank / (m + 1), "observed": observed[rank - 1], "low": low, "high": high}
    return pd.DataFrame(frame)


def _envelope(levels: np.ndarray, rank: np.ndarray, m: int, n_calibration: int | None) -> np.ndarray:
    """Quantiles [levels, ranks] of the i-th smallest of m p-values."""
    if n_calibration is None or n_calibration > MANY_NORMALS:
        return beta.ppf(levels[:, None], rank, m + 1 - rank)
    counts = np.arange(n_calibration + 1)
    above = [np.cumsum(betabinom.pmf(counts, n_calibration, i, m + 1 - i)).searchsorted(levels) for i in rank]
    return (1 + np.minimum(np.array(above).T, n_calibration)) / (n_calibration + 1)


def _ranks(m: int) -> np.ndarray:
    """All ranks 1..m where few, else every one of the smallest and an even choice of the rest."""
    if m <= QQ_POINTS:
        return np.arange(1, m + 1)
    few = np.arange(1, QQ_POINTS // 4 + 1)
    return np.unique(np.concatenate([few, np.linspace(1, m, QQ_POINTS - len(few)).round().astype(int)]))
