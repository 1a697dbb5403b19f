"""Figures of cross-fitting: every patient is judged once, by a model that never saw them, and folds are averaged.

Scores of models that were trained on other patients are not one scale, so units are ranked within a fold and the AUROC
is the mean over the folds (LeDell, Petersen and van der Laan, Electronic Journal of Statistics 2015, 9:1583), not the
AUROC of all scores together. Folds share no patient among their held-out ones, so each is resampled by itself; that
their models share training patients is not in the interval.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.errors import CatalogueError
from pipeline.evaluation.bootstrap import Estimate, Sampled
from pipeline.evaluation.compare import Comparison, by_bootstrap, sampled_areas
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.table import ScoreTable


def mean_estimate(folds: Sequence[Estimate]) -> Estimate:
    """Return the mean of independent estimates of one figure.

    The interval's two arms are each the root of the summed squares of the folds' arms, over the number of folds: exact
    where all are normal, and it keeps what skewness the folds have. One estimate alone is returned as it is.
    """
    if len(folds) == 1:
        return folds[0]
    value = float(np.mean([fold.value for fold in folds]))
    arms = [(fold.value - fold.low, fold.high - fold.value) for fold in folds if None not in (fold.low, fold.high)]
    counts = {"resamples": min(fold.resamples for fold in folds), "degenerate": sum(fold.degenerate for fold in folds)}
    if len(arms) < len(folds):
        note = f"{len(folds) - len(arms)} of {len(folds)} folds have no interval"
        return Estimate(value=value, **counts, note=note)
    below, above = np.linalg.norm(arms, axis=0) / len(folds)
    return Estimate(value=value, low=value - below, high=value + above, **counts)


def compare_folds(
    folds: Sequence[pd.DataFrame], name: str, first: str, second: str, config: EvaluationConfig
) -> Comparison:
    """Compare two scores by the mean over folds of their AUROC, by the paired patient bootstrap within folds.

    Args:
        folds: one frame a fold, see `ScoreTable.from_frame`; no patient stands in two.
        name: what the first score is called.
        first, second: columns, both on the same units.
        config: confidence of the interval; resamples and seed of the bootstrap, which differs by fold.

    Raises:
        EmptySelection: a fold lacks a class.
        CatalogueError: a patient stands in two folds.
    """
    tables = [ScoreTable.from_frame(frame, (first, second)) for frame in folds]
    _refuse_shared(tables)
    drawn = [
        table.bootstrap(config.model_copy(update={"seed": config.seed + place})) for place, table in enumerate(tables)
    ]
    areas = [sampled_areas(table, one, (first, second)) for table, one in zip(tables, drawn, strict=True)]
    found = by_bootstrap(tables[0], (name, second), drawn[0], Sampled.mean(areas))
    return found.model_copy(
        update={
            "test": f"paired patient bootstrap within {len(tables)} folds",
            "units": sum(len(table.patient) for table in tables),
            "patients": sum(table.patients for table in tables),
        }
    )


def best_control(tables: Sequence[ScoreTable], columns: Sequence[str]) -> tuple[str, int]:
    """Return the column, and its sign, with the highest mean AUROC over folds; the sign is the same in every fold."""
    areas = {name: np.mean([table.area(table.scores(name)) for table in tables]) for name in columns}
    best = max(areas, key=lambda name: max(areas[name], 1 - areas[name]))
    return best, 1 if areas[best] >= 0.5 else -1


def _refuse_shared(tables: Sequence[ScoreTable]) -> None:
    held = [set(table.frame["patient_id"].astype(str)) for table in tables]
    shared = sum(map(len, held)) - len(set().union(*held))
    if shared:
        raise CatalogueError(
            f"{shared} patients stand in more than one fold; each may be held out once. Run the benchmark again."
        )
