"""AUROC between units that are alike in a trivial control: what a score finds beyond that control.

Two figures, since each has its own weakness:

- In strata: pairs of an abnormal and a normal unit count only within one quantile stratum of the control, and are
  pooled over the strata (van Elteren's weights). The control still varies a little within a stratum: its own row shows
  how much of it is left.
- Given the control: the AUROC of the residuals of a regression of the score on the control, fitted on normals only.
  Both are ranks, so that no monotone dependence is left. Units outside the range of the control that both classes cover
  are left out, since nothing there can be compared without extrapolation. Refitted in every resample.

A score that only reads the control is near 0.5 in both. A score that is independent of it keeps its AUROC.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from pipeline.errors import ConfigError
from pipeline.evaluation.bootstrap import PatientBootstrap, Sampled
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.ranking import Curve, Ranking, roc_area
from pipeline.evaluation.table import CONTROL, ScoreTable

IN_STRATA, GIVEN = "AUROC in strata of ", "AUROC given "
DECIMALS = 6  # of residuals of ranks in (0, 1]: equal ones differ by rounding, and must tie


def matched_names(config: EvaluationConfig) -> list[str]:
    """Return the names of the metrics, in the order of `sample_matched`."""
    return [f"{kind}{control}" for control in config.matched for kind in (IN_STRATA, GIVEN)]


def sample_matched(
    table: ScoreTable, bootstrap: PatientBootstrap, scores: np.ndarray, config: EvaluationConfig
) -> list[Sampled]:
    """Return both figures of one score column [N] for every control of `config.matched`.

    Raises:
        ConfigError: the table has no such control.
    """
    parts: list[Sampled] = []
    for name in config.matched:
        control = require_control(table, name)
        strata = _Strata.of(table, scores, quantile_strata(control, config.matched_strata))
        given = _Given.of(table, scores, control)
        parts += [bootstrap.sample(part.area, len(scores) * part.copies) for part in (strata, given)]
    return parts


def require_control(table: ScoreTable, name: str) -> np.ndarray:
    """Return a control's values [N].

    Raises:
        ConfigError: the table has no such control.
    """
    if f"{CONTROL}{name}" not in table.columns:
        names = ", ".join(column.removeprefix(CONTROL) for column in table.columns if column.startswith(CONTROL))
        raise ConfigError(
            f"evaluation.matched names the control {name!r}, but these units have {names or 'none'}. Choose one of "
            "these."
        )
    return table.scores(f"{CONTROL}{name}")


def quantile_strata(control: np.ndarray, count: int) -> np.ndarray:
    """Return the stratum of each unit [N], 0 to `count` - 1, with equally many units of both classes together."""
    edges = np.quantile(control, np.linspace(0, 1, count + 1)[1:-1])
    return np.searchsorted(edges, control, side="right")


class _Strata:
    """The AUROC within strata, weighted by their pairs."""

    copies = 2  # cells per unit and resample

    def __init__(self, rankings: Sequence[Ranking]) -> None:
        self.rankings = rankings

    @classmethod
    def of(cls, table: ScoreTable, scores: np.ndarray, stratum: np.ndarray) -> _Strata:
        groups = [stratum == code for code in np.unique(stratum)]
        return cls([Ranking.of(scores[one], table.abnormal[one], table.patient[one]) for one in groups])

    def area(self, weights: np.ndarray) -> np.ndarray:
        """Return the AUROC [R, 1] of patient weights [R, P]; NaN where no stratum has both classes."""
        won, pairs = np.zeros(len(weights)), np.zeros(len(weights))
        for curve in (ranking.curve(weights) for ranking in self.rankings):
            here = curve.tp[:, -1] * curve.fp[:, -1]
            won += np.where(here > 0, np.nan_to_num(roc_area(curve)) * here, 0)
            pairs += here
        return np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0)[:, None]


class _Given:
    """The AUROC of the residuals of ranks, within the range of the control that both classes cover."""

    copies = 8

    def __init__(self, score: np.ndarray, control: np.ndarray, abnormal: np.ndarray, patient: np.ndarray) -> None:
        self.score, self.control, self.abnormal, self.patient = score, control, abnormal, patient

    @classmethod
    def of(cls, table: ScoreTable, scores: np.ndarray, control: np.ndarray) -> _Given:
        normal, ill = control[~table.abnormal], control[table.abnormal]
        low, high = max(normal.min(), ill.min()), min(normal.max(), ill.max())
        inside = (control >= low) & (control <= high)
        ranks = [rankdata(values[inside]) / max(inside.sum(), 1) for values in (scores, control)]
        return cls(ranks[0], ranks[1], table.abnormal[inside], table.patient[inside])

    def area(self, weights: np.ndarray) -> np.ndarray:
        """Return the AUROC [R, 1] of patient weights [R, P]; NaN where a class is missing."""
        rows = weights[:, self.patient].astype(float)
        residuals = np.round(self.score - self._slope(rows)[:, None] * self.control, DECIMALS)
        halves = [self._area(residuals, rows, first) for first in (self.abnormal, ~self.abnormal)]
        return np.mean(halves, axis=0)[:, None]

    def _slope(self, rows: np.ndarray) -> np.ndarray:
        """Return the weighted least-squares slope [R] over the normals; 0 where the control does not vary."""
        normal = rows * ~self.abnormal
        total = np.maximum(normal.sum(axis=1), 1)
        x = self.control - (normal @ self.control / total)[:, None]
        spread = np.sum(normal * x**2, axis=1)
        return np.divide(np.sum(normal * x * self.score, axis=1), spread, out=np.zeros_like(spread), where=spread > 0)

    def _area(self, residuals: np.ndarray, rows: np.ndarray, first: np.ndarray) -> np.ndarray:
        """Return the AUROC [R] with ties broken in favour of the units `first`; the mean of both ways counts half."""
        before = np.argsort(~first, kind="stable")
        order = before[np.argsort(-residuals[:, before], axis=1, kind="stable")]
        ranked, ill = np.take_along_axis(rows, order, axis=1), self.abnormal[order]
        with np.errstate(invalid="ignore"):
            return roc_area(Curve.from_counts(ranked * ill, ranked * ~ill))
