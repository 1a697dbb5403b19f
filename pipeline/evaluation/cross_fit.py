"""Results of cross-fitting: every patient is scored once, by a model that never saw them, and folds are averaged.

Scores of models that were trained on different patients are not on one scale, so units are ranked within a fold, and
the AUROC is the mean over the folds (LeDell, Petersen and van der Laan, Electronic Journal of Statistics 2015, 9:1583),
not the AUROC of all scores together. The held-out patients of the folds are disjoint, so each fold is resampled
separately; the interval ignores that their models share training patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from pipeline.errors import CatalogueError
from pipeline.evaluation.bootstrap import Estimate, Sampled
from pipeline.evaluation.compare import Comparison, compare_by_bootstrap, sampled_areas
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.table import ScoreTable


def mean_estimate(folds: Sequence[Estimate]) -> Estimate:
    """Return the mean of independent estimates of one metric.

    Each arm of the interval is the root of the summed squares of the folds' arms divided by the number of folds: exact
    for normal distributions, and it preserves skewness. A single estimate is returned unchanged.
    """
    if len(folds) == 1:
        return folds[0]
    value = float(np.mean([fold.value for fold in folds]))
    arms = [
        (fold.value - fold.low, fold.high - fold.value)
        for fold in cast(Any, folds)
        if None not in (fold.low, fold.high)
    ]
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
        folds: one frame per fold, see `ScoreTable.from_frame`; no patient is in two.
        name: name of the first score in the result.
        first, second: columns, both on the same units.
        config: confidence of the interval; resamples and seed of the bootstrap, which differs by fold.

    Raises:
        EmptySelection: a fold lacks a class.
        CatalogueError: a patient is in two folds.
    """
    tables = [ScoreTable.from_frame(frame, (first, second)) for frame in folds]
    _refuse_shared(tables)
    drawn = [
        table.bootstrap(config.model_copy(update={"seed": config.seed + place})) for place, table in enumerate(tables)
    ]
    areas = [sampled_areas(table, one, (first, second)) for table, one in zip(tables, drawn, strict=True)]
    comparison = compare_by_bootstrap(tables[0], (name, second), drawn[0], Sampled.mean(areas))
    return comparison.model_copy(
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
    patients = [set(table.frame["patient_id"].astype(str)) for table in tables]
    shared = sum(map(len, patients)) - len(set().union(*patients))
    if shared:
        raise CatalogueError(
            f"{shared} patients are in more than one fold, but each may be held out only once. Run the benchmark again."
        )
