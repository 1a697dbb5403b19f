"""Image-level metrics of the model and of every trivial control, from the same patient resamples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline.evaluation.bootstrap import PatientBootstrap, Sampled
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.matched import matched_names, sample_matched
from pipeline.evaluation.metric_words import SENSITIVITY, describe_metric
from pipeline.evaluation.ranking import Ranking, average_precision, roc_area, sensitivity_at
from pipeline.evaluation.results import ResultTable, ScoreRow, judge
from pipeline.evaluation.table import ScoreTable


def evaluate_images(
    frame: pd.DataFrame,
    config: EvaluationConfig,
    *,
    models: Sequence[str] = ("score",),
    unit: str = "slice",
    title: str = "all units",
) -> ResultTable:
    """Measure AUROC, AP, sensitivity at fixed specificities and matched AUROCs, with patient-bootstrap intervals.

    A control whose AUROC is below 0.5 is listed a second time with its sign flipped ("negative ..."): a control is as
    strong as its better direction, and choosing the direction on the labels favours the control, never the model.

    Args:
        frame: see `ScoreTable.from_frame`.
        config: resamples, seed, confidence, specificities.
        models: columns of the models; `control:*` columns are added automatically.
        unit: "slice" or "study".
        title: name of the selection in the report.

    Raises:
        ConfigError, EmptySelection: see `ScoreTable.from_frame`.
    """
    table = ScoreTable.from_frame(frame, models, unit)
    bootstrap = table.bootstrap(config)
    columns = table.named_scores()
    sampled = {name: sample_scores(table, bootstrap, values, config) for name, values in columns.items()}
    names = metric_names(config)
    rows = tuple(
        ScoreRow(name=name, control=name not in models, metrics=dict(zip(names, bootstrap.estimates(s), strict=True)))
        for name, s in sampled.items()
    )
    verdicts = tuple(
        judge(bootstrap, "AUROC", (model, sampled[model]), (control, sampled[control]))
        for model in models
        for control in columns
        if control not in models
    )
    return ResultTable(
        title=title,
        level=table.level,
        counts=_counts(table),
        interval=f"{config.confidence:.0%} patient bootstrap ({bootstrap.scheme})",
        rows=rows,
        verdicts=verdicts,
        notes=tuple(_notes(table, rows, config)),
    )


def metric_names(config: EvaluationConfig) -> list[str]:
    """Return the names of the image-level metrics in the order of `sample_scores`."""
    return ["AUROC", "AP", *(f"{SENSITIVITY}{100 * s:g}" for s in config.specificities), *matched_names(config)]


def sample_scores(
    table: ScoreTable, bootstrap: PatientBootstrap, scores: np.ndarray, config: EvaluationConfig
) -> Sampled:
    """Return the image-level metrics of one score column for the sample, every resample and the jackknife."""
    ranking = Ranking.of(scores, table.abnormal, table.patient)

    def statistic(weights: np.ndarray) -> np.ndarray:
        curve = ranking.curve(weights)
        sensitivities = [sensitivity_at(curve, s) for s in config.specificities]
        return np.stack([roc_area(curve), average_precision(curve), *sensitivities], axis=1)

    plain = bootstrap.sample(statistic, len(scores))
    return Sampled.join([plain, *sample_matched(table, bootstrap, scores, config)])


def _counts(table: ScoreTable) -> dict[str, int]:
    abnormal = int(table.abnormal.sum())
    return {
        "units": len(table.abnormal),
        "patients": table.patients,
        "normal": len(table.abnormal) - abnormal,
        "abnormal": abnormal,
        "abnormal_patients": int(table.strata().sum()),
    }


def _notes(table: ScoreTable, rows: Sequence[ScoreRow], config: EvaluationConfig) -> list[str]:
    counts: Mapping[str, int] = _counts(table)
    notes = [
        f"{counts['normal']} normal units are too few for a precise specificity of {100 * s:g} %: one unit is "
        f"{100 / counts['normal']:.1f} %."
        for s in config.specificities
        if counts["normal"] * (1 - s) < 1
    ]
    degenerate = max(e.degenerate for row in rows for e in row.metrics.values())
    if degenerate:
        notes.append(f"{degenerate} of {config.resamples} resamples lacked a class and were left out.")
    flat = sorted(
        {
            f"{row.name} {describe_metric(name)}"
            for row in rows
            for name, e in row.metrics.items()
            if e.note.startswith("no width")
        }
    )
    if flat:
        notes.append(f"Interval without width, which does not mean certainty: {', '.join(flat)}.")
    return notes
