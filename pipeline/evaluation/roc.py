"""Points of the ROC and precision-recall curves, for figures and CSV."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.ranking import Curve, Ranking
from pipeline.evaluation.table import ScoreTable

GRID = np.linspace(0, 1, 101)  # false-positive rates at which the band is evaluated


def roc_points(table: ScoreTable) -> pd.DataFrame:
    """Return every threshold of every model and control, starting at (0, 0) with an infinite threshold.

    Returns:
        Columns score (name as in the result table), threshold, fpr, tpr, precision (NaN if nothing is flagged).
    """
    points = [_points(table, name, values) for name, values in table.named_scores().items()]
    return pd.concat(points, ignore_index=True)


def roc_band(table: ScoreTable, column: str, config: EvaluationConfig) -> pd.DataFrame:
    """Return the pointwise percentile band of the sensitivity at each false-positive rate, by patient bootstrap.

    Returns:
        Columns fpr, low, high (of the sensitivity); 101 rows. The band holds for one false-positive rate at a time.
    """
    ranking = Ranking.of(table.scores(column), table.abnormal, table.patient)
    sampled = table.bootstrap(config).sample(lambda w: _tpr_on_grid(ranking.curve(w)), len(table.abnormal))
    tail = (1 - config.confidence) / 2
    low, high = np.nanquantile(sampled.replicates, [tail, 1 - tail], axis=0)
    return pd.DataFrame({"fpr": GRID, "low": low, "high": high})


def _points(table: ScoreTable, name: str, scores: np.ndarray) -> pd.DataFrame:
    ranking = Ranking.of(scores, table.abnormal, table.patient)
    curve = ranking.curve(np.ones((1, table.patients)))
    tpr, fpr = curve.rates()
    with np.errstate(invalid="ignore"):
        precision = np.append(np.nan, (curve.tp / (curve.tp + curve.fp))[0])
    thresholds = np.append(np.inf, ranking.thresholds)
    return pd.DataFrame({"score": name, "threshold": thresholds, "fpr": fpr[0], "tpr": tpr[0], "precision": precision})


def _tpr_on_grid(curve: Curve) -> np.ndarray:
    """Return the sensitivity at each grid point [R, 101]: the best of any threshold, without interpolation."""
    tpr, fpr = curve.rates()
    rows = zip(tpr, fpr, strict=True)
    return np.stack([row[np.searchsorted(rate, GRID + 1e-12, side="right") - 1] for row, rate in rows])
