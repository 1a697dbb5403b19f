"""Headline of an evaluation: the few numbers that a list of runs or versions shows."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.report import EvaluationReport, OperatingPoint
from pipeline.evaluation.results import ScoreRow

METRIC = "AUROC"


def headline_metrics(report: EvaluationReport) -> dict[str, float]:
    """Return AUROC of the model and of its best control, and the realised false-positive rate, by `set/name`.

    Each has its 95 % interval as `_low` and `_high`, where it has one; what was not measured is missing.
    """
    flat: dict[str, float] = {}
    for name, estimate in _estimates(report):
        bounds = {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
        flat |= {f"{report.set_name}/{name}{end}": value for end, value in bounds.items() if value is not None}
    point = _measured_point(report)
    return flat if point is None else {**flat, f"{report.set_name}/target_false_positive_rate": point.threshold.alpha}


def headline_sentence(report: EvaluationReport) -> str:
    """Return the same in one sentence, with the name of the control."""
    table, control = report.tables[0], _best_control(report)
    sentence = f"{report.set_name}: AUROC {table.rows[0].metrics[METRIC].text()}"
    if control is not None:
        sentence += f", best control {control.name} {control.metrics[METRIC].text()}"
    point = _measured_point(report)
    if point is not None and point.realised is not None:
        sentence += f"; realised false-positive rate {point.realised.rate.text()} for a target of "
        sentence += f"{point.threshold.alpha:g}"
    counts = table.counts
    return f"{sentence}. {counts['abnormal']} abnormal and {counts['normal']} normal units."


def member_metrics(report: EvaluationReport, name: str) -> dict[str, float]:
    """Return the AUROC of one member of an ensemble as `set/auroc`, with its interval; nothing if it has none."""
    rows = (row for row in report.tables[0].rows if not row.control and row.name == name and METRIC in row.metrics)
    row = next(rows, None)
    if row is None:
        return {}
    estimate = row.metrics[METRIC]
    bounds = {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
    return {f"{report.set_name}/auroc{end}": value for end, value in bounds.items() if value is not None}


def _estimates(report: EvaluationReport) -> Iterator[tuple[str, Estimate]]:
    yield "auroc", report.tables[0].rows[0].metrics[METRIC]
    control, point = _best_control(report), _measured_point(report)
    if control is not None:
        yield "best_control_auroc", control.metrics[METRIC]
    if point is not None and point.realised is not None:
        yield "false_positive_rate", point.realised.rate


def _best_control(report: EvaluationReport) -> ScoreRow | None:
    controls = [row for row in report.tables[0].rows if row.control and METRIC in row.metrics]
    return max(controls, key=lambda row: row.metrics[METRIC].value, default=None)


def _measured_point(report: EvaluationReport) -> OperatingPoint | None:
    """Return the point of the configured rate, which comes first, if it was measured."""
    return next((point for point in report.operating_points[:1] if point.realised is not None), None)
