"""Comparison of two scores on the same units, with a named variance for independent or clustered units.

One unit per patient: DeLong, DeLong and Clarke-Pearson (Biometrics 1988, 44:837) in the fast form of Sun and Xu (IEEE
Signal Processing Letters 2014, 21:1389). Several units per patient: Obuchowski (Biometrics 1997, 53:567), which reduces
to DeLong if every cluster has one unit. The paired patient bootstrap is a check that needs no formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata

from pipeline.config import Config
from pipeline.errors import ConfigError, EmptySelection
from pipeline.evaluation.bootstrap import PatientBootstrap, Sampled, bca_levels, bca_tails
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.ranking import Ranking, roc_area
from pipeline.evaluation.table import ScoreTable

Test = Literal["auto", "delong", "obuchowski", "bootstrap"]
NAMES = {
    "delong": "DeLong (independent units)",
    "obuchowski": "Obuchowski 1997 (units clustered by patient)",
    "bootstrap": "paired patient bootstrap",
}


class NonInferiority(Config):
    """One-sided test that the first score is not worse than the second by `margin` or more.

    Attributes:
        margin: largest acceptable loss of AUROC, fixed in advance.
        alpha: one-sided level.
        lower: lower one-sided 1 - alpha bound of the difference.
        p_value: of the hypothesis difference <= -margin; None if the variance is zero.
        non_inferior: lower > -margin.
    """

    margin: float
    alpha: float
    lower: float
    p_value: float | None
    non_inferior: bool


class Comparison(Config):
    """AUROC of `first` minus AUROC of `second`, both on the same units.

    Attributes:
        test: the test used, in words.
        difference: first minus second; low, high its two-sided interval at `confidence`.
        p_value: two-sided, of no difference; None if the variance is zero and the difference is not.
    """

    first: str
    second: str
    test: str
    units: int
    patients: int
    auroc_first: float
    auroc_second: float
    difference: float
    standard_error: float
    low: float
    high: float
    confidence: float
    p_value: float | None
    non_inferiority: NonInferiority | None = None

    @property
    def sentence(self) -> str:
        """Return one line for the report."""
        p = "not defined (no variance)" if self.p_value is None else _p_text(self.p_value)
        text = (
            f"{self.first} {self.auroc_first:.3f} against {self.second} {self.auroc_second:.3f}: AUROC difference "
            f"{self.difference:.3f} ({self.low:.3f} to {self.high:.3f}), p {p}; {self.test}, {self.units} units of "
            f"{self.patients} patients."
        )
        test = self.non_inferiority
        if test is None:
            return text
        verdict = "is not inferior" if test.non_inferior else "is not shown to be non-inferior"
        return (
            f"{text} {self.first} {verdict} at a margin of {test.margin:g} (one-sided alpha {test.alpha:g}, lower "
            f"bound {test.lower:.3f})."
        )


def compare(
    frame: pd.DataFrame,
    first: str,
    second: str,
    config: EvaluationConfig,
    *,
    test: Test = "auto",
    margin: float | None = None,
    alpha: float = 0.025,
) -> Comparison:
    """Compare the AUROC of two columns of one frame.

    Args:
        frame: see `ScoreTable.from_frame`; both columns on the same units.
        first, second: column names.
        config: confidence of the interval; resamples and seed of the bootstrap.
        test: "auto" is DeLong for one unit per patient, else Obuchowski.
        margin: adds a non-inferiority test of `first` against `second` with this margin of AUROC.
        alpha: one-sided level of that test.

    Raises:
        ConfigError: DeLong is requested for clustered units, or margin or alpha is out of range.
        EmptySelection: too few units of a class for a variance.
    """
    table = ScoreTable.from_frame(frame, (first, second))
    chosen = ("obuchowski" if table.clustered else "delong") if test == "auto" else test
    _check(table, chosen, margin, alpha)
    areas: Any
    scores = np.stack([table.scores(first), table.scores(second)])
    if chosen == "bootstrap":
        bootstrap = table.bootstrap(config)
        areas = sampled_areas(table, bootstrap, (first, second))
        return compare_by_bootstrap(table, (first, second), bootstrap, areas, margin, alpha)
    clusters = np.arange(len(table.patient)) if chosen == "delong" else table.patient
    areas, covariance = auroc_covariance(scores, table.abnormal, clusters)
    contrast = np.array([1.0, -1.0])
    error = float(np.sqrt(max(contrast @ covariance @ contrast, 0.0)))
    difference = float(areas[0] - areas[1])
    reach = norm.ppf((1 + config.confidence) / 2) * error
    return Comparison(
        **_header(table, (first, second), chosen, areas),
        standard_error=error,
        low=difference - reach,
        high=difference + reach,
        confidence=config.confidence,
        p_value=2 * norm.sf(abs(difference) / error) if error > 0 else (1.0 if difference == 0 else None),
        non_inferiority=None if margin is None else _non_inferiority(difference, error, margin, alpha),
    )


def auroc_covariance(scores: np.ndarray, abnormal: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the AUROC [K] of K scores on the same units and their covariance [K, K] (Obuchowski 1997).

    With one unit per cluster the covariance is DeLong's.

    Args:
        scores: float64 [K, N].
        abnormal: bool [N].
        clusters: integer codes [N].

    Raises:
        EmptySelection: fewer than two clusters with an abnormal or with a normal unit.
    """
    parts = [structural_components(row, abnormal) for row in scores]
    areas = np.array([upper.mean() for upper, _ in parts])
    codes = np.unique(clusters, return_inverse=True)[1]
    positive, negative = codes[abnormal], codes[~abnormal]
    number, m, n = codes.max() + 1, len(positive), len(negative)
    with_positive, with_negative = len(np.unique(positive)), len(np.unique(negative))
    if min(with_positive, with_negative) < 2:
        raise EmptySelection(
            f"{with_positive} patients have abnormal and {with_negative} normal units, but the variance of an AUROC "
            "needs 2 of each. Add patients."
        )
    above = np.stack([np.bincount(positive, u - a, number) for (u, _), a in zip(parts, areas, strict=True)])
    below = np.stack([np.bincount(negative, v - a, number) for (_, v), a in zip(parts, areas, strict=True)])
    s10 = with_positive / ((with_positive - 1) * m) * above @ above.T
    s01 = with_negative / ((with_negative - 1) * n) * below @ below.T
    s11 = number / (number - 1) * above @ below.T
    return areas, s10 / m + s01 / n + (s11 + s11.T) / (m * n)


def structural_components(scores: np.ndarray, abnormal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of normals below each abnormal unit, and the share of abnormals above each normal unit.

    Ties count half. Midranks make this O(N log N) (Sun and Xu 2014).
    """
    upper, lower = scores[abnormal], scores[~abnormal]
    joint = rankdata(np.concatenate([upper, lower]))
    m, n = len(upper), len(lower)
    return (joint[:m] - rankdata(upper)) / n, 1 - (joint[m:] - rankdata(lower)) / m


def _check(table: ScoreTable, test: str, margin: float | None, alpha: float) -> None:
    if test not in NAMES:
        raise ConfigError(f"There is no test {test!r}. Choose auto, {', '.join(NAMES)}.")
    if test == "delong" and table.clustered:
        raise ConfigError(
            f"DeLong assumes independent units, but {len(table.patient)} units come from {table.patients} patients. "
            "Use obuchowski or bootstrap."
        )
    if margin is not None and not 0 < margin < 1:
        raise ConfigError(f"The non-inferiority margin {margin} must be between 0 and 1. Give one such as 0.03.")
    if not 0 < alpha < 0.5:
        raise ConfigError(f"The one-sided alpha {alpha} must be between 0 and 0.5. Give one such as 0.025.")


def _header(table: ScoreTable, names: tuple[str, str], test: str, areas: np.ndarray) -> dict[str, object]:
    return {
        "first": names[0],
        "second": names[1],
        "test": NAMES[test],
        "units": len(table.patient),
        "patients": table.patients,
        "auroc_first": float(areas[0]),
        "auroc_second": float(areas[1]),
        "difference": float(areas[0] - areas[1]),
    }


def _non_inferiority(difference: float, error: float, margin: float, alpha: float) -> NonInferiority:
    lower = difference - norm.ppf(1 - alpha) * error
    p_value = float(norm.sf((difference + margin) / error)) if error > 0 else None
    return NonInferiority(margin=margin, alpha=alpha, lower=lower, p_value=p_value, non_inferior=lower > -margin)


def compare_seeds(
    frame: pd.DataFrame, name: str, seeds: Sequence[str], second: str, config: EvaluationConfig
) -> Comparison:
    """Compare the mean AUROC of one method's trainings with the AUROC of another score, by the paired bootstrap.

    Each resample draws both patients and trainings, since both are random (Bouthillier et al., arXiv:2103.03098).
    S trainings drawn from S show (S - 1) / S of their variance, so the interval is slightly too narrow for small S.

    Args:
        frame: see `ScoreTable.from_frame`; all columns on the same units.
        name: name of the mean in the result.
        seeds: columns of the same method, each trained with another seed; with one seed, this is `compare` by
            bootstrap.
        second: column that the mean is compared with.
        config: confidence of the interval; resamples and seed of the bootstrap.

    Raises:
        EmptySelection: too few units of a class for an interval.
    """
    table = ScoreTable.from_frame(frame, (*seeds, second))
    bootstrap, columns = table.bootstrap(config), (*seeds, second)
    areas = sampled_areas(table, bootstrap, columns)
    drawn = np.random.default_rng([config.seed, len(seeds)]).integers(
        len(seeds), size=(len(areas.replicates), len(seeds))
    )
    means = Sampled(
        np.array([areas.values[:-1].mean(), areas.values[-1]]),
        np.stack([np.take_along_axis(areas.replicates, drawn, axis=1).mean(axis=1), areas.replicates[:, -1]], axis=1),
        np.stack([areas.jackknife[:, :-1].mean(axis=1), areas.jackknife[:, -1]], axis=1),
    )
    comparison = compare_by_bootstrap(table, (name, second), bootstrap, means)
    what = NAMES["bootstrap"] if len(seeds) == 1 else f"paired bootstrap of patients and of {len(seeds)} trainings"
    return comparison.model_copy(update={"test": what})


def sampled_areas(table: ScoreTable, bootstrap: PatientBootstrap, names: Sequence[str]) -> Sampled:
    """Return the AUROC of each column, on the sample and on every resample."""
    rankings = [Ranking.of(table.scores(name), table.abnormal, table.patient) for name in names]
    return Sampled.join(
        [
            bootstrap.sample(cast(Any, lambda w, r=r: roc_area(r.curve(w))[:, None]), len(table.patient))
            for r in rankings
        ]
    )


def compare_by_bootstrap(
    table: ScoreTable,
    names: tuple[str, str],
    bootstrap: PatientBootstrap,
    areas: Sampled,
    margin: float | None = None,
    alpha: float = 0.025,
) -> Comparison:
    """Return the comparison of the sampled AUROCs of two scores, first minus second."""
    paired = areas.difference(0, 1)
    (estimate,) = bootstrap.estimates(paired)
    draws = paired.replicates[np.isfinite(paired.replicates)]
    if estimate.low is None or estimate.high is None:
        raise EmptySelection(f"The bootstrap has no interval: {estimate.note}. Add patients of the rarer class.")
    value, without = float(paired.values[0]), paired.jackknife[:, 0]
    test = None
    if margin is not None:
        lower = float(np.quantile(draws, bca_levels(value, draws, without, 1 - 2 * alpha)[0]))
        p_value = bca_tails(value, draws, without, -margin)[0]
        test = NonInferiority(margin=margin, alpha=alpha, lower=lower, p_value=p_value, non_inferior=lower > -margin)
    return Comparison(
        **_header(table, names, "bootstrap", areas.values),
        standard_error=float(draws.std(ddof=1)),
        low=estimate.low,
        high=estimate.high,
        confidence=bootstrap.confidence,
        p_value=min(1.0, 2 * min(bca_tails(value, draws, without, 0.0))),
        non_inferiority=test,
    )


def _p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"
