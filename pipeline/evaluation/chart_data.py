"""Numbers behind the charts of an evaluation, small enough to be stored beside its report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from pipeline.charts.forest_chart import ForestData, ForestRow, draw_forest
from pipeline.charts.rate_chart import PValueData, RateData, RatePoint, draw_p_values, draw_rates
from pipeline.charts.roc_chart import Part, RocBand, RocCurve, RocData, draw_roc
from pipeline.charts.score_chart import ScoreData, ScoreThreshold, draw_scores
from pipeline.config import Config
from pipeline.detection.conformal import Threshold
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.report import EvaluationReport, OperatingPoint
from pipeline.evaluation.results import ResultTable, ScoreRow
from pipeline.evaluation.roc import roc_band
from pipeline.evaluation.subgroups import Subgroup
from pipeline.evaluation.table import ScoreTable

BINS, REACH = 40, 0.998  # scores above this quantile are counted in the last bin
STEPS = 500  # a curve is stored on a grid of so many steps each way, finer than a pixel
P_POINTS = 120
NEGATIVE = "negative "


class ChartData(Config):
    """Numbers of every chart of one evaluation; a chart that it has no numbers for is None."""

    roc: RocData
    scores: ScoreData
    rates: RateData | None = None
    p_values: PValueData | None = None
    subgroups: ForestData | None = None

    def draw(self, key: str) -> dict[str, str]:
        """Return each chart as SVG, by its name; `key` begins the ids of their elements."""
        charts = {"roc": draw_roc(self.roc, f"{key}-roc"), "scores": draw_scores(self.scores, f"{key}-scores")}
        if self.rates is not None:
            charts["rates"] = draw_rates(self.rates, f"{key}-rates")
        if self.p_values is not None:
            charts["p_values"] = draw_p_values(self.p_values, f"{key}-p")
        if self.subgroups is not None:
            charts["subgroups"] = draw_forest(self.subgroups, f"{key}-groups")
        return charts


def build_charts(report: EvaluationReport, table: ScoreTable, column: str, config: EvaluationConfig) -> ChartData:
    """Return the numbers behind the charts of a report.

    Args:
        report: with its ROC points and p-values.
        table: the scores behind it.
        column: the model's.
        config: of the band's bootstrap.
    """
    result = report.tables[0]
    band = roc_band(table, column, config)
    points = [point for point in report.operating_points if point.realised is not None]
    return ChartData(
        roc=RocData(
            title=f"{result.level}, {result.title}",
            curves=tuple(_curves(report.roc_points, result)),
            band=RocBand(fpr=_few(band["fpr"]), low=_few(band["low"]), high=_few(band["high"])),
        ),
        scores=_scores(table, column, [point.threshold for point in report.operating_points]),
        rates=_rates(points) if points else None,
        p_values=None if report.p_values.empty else _p_values(report),
        subgroups=_forest(report.subgroups, result) if report.subgroups else None,
    )


def _curves(points: pd.DataFrame, result: ResultTable) -> Iterator[RocCurve]:
    """Yield the model, the members, the best control, the others: each control in its better direction only."""
    frames = dict(list(points.groupby("score", sort=False)))
    models = [row for row in result.rows if not row.control]
    names = {row.name for row in result.rows}
    controls = [row for row in result.rows if row.control and f"{NEGATIVE}{row.name}" not in names]
    controls.sort(key=lambda row: -row.metrics["AUROC"].value)
    parts: list[tuple[Part, Sequence[ScoreRow]]] = [
        *(("model", models[:1]), ("member", models[1:])),
        *(("best control", controls[:1]), ("control", controls[1:])),
    ]
    for part, rows in parts:
        yield from (_curve(part, row, frames[row.name]) for row in rows)


def _curve(part: Part, row: ScoreRow, frame: pd.DataFrame) -> RocCurve:
    """Return a curve on the grid of `STEPS`, without the points that lie on one another there."""
    cells = np.round(frame[["fpr", "tpr"]].to_numpy() * STEPS).astype(int)
    moved = np.append(True, np.any(np.diff(cells, axis=0) != 0, axis=1))
    fpr, tpr = (cells[moved] / STEPS).T
    return RocCurve(name=row.name, part=part, area=row.metrics["AUROC"].text(2), fpr=_few(fpr), tpr=_few(tpr))


def _scores(table: ScoreTable, column: str, thresholds: Sequence[Threshold]) -> ScoreData:
    scores = table.scores(column)
    limits = [threshold.value for threshold in thresholds if np.isfinite(threshold.value)]
    low, high = min(float(scores.min()), *limits, np.inf), max(float(np.quantile(scores, REACH)), *limits, -np.inf)
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    shares = [_shares(scores[inside], edges) for inside in (~table.abnormal, table.abnormal)]
    return ScoreData(
        edges=tuple(edges.tolist()),
        normal=shares[0],
        abnormal=shares[1],
        normals=int(np.sum(~table.abnormal)),
        abnormals=int(table.abnormal.sum()),
        beyond=int(np.sum(scores > edges[-1])),
        thresholds=tuple(ScoreThreshold(value=t.value, fpr=t.alpha) for t in thresholds if np.isfinite(t.value)),
    )


def _shares(scores: np.ndarray, edges: np.ndarray) -> tuple[float, ...]:
    counts, _ = np.histogram(np.minimum(scores, edges[-1]), edges)
    return _few(counts / max(len(scores), 1))


def _rates(points: Sequence[OperatingPoint]) -> RateData:
    realised = [point.realised for point in points if point.realised is not None]
    rates = tuple(_rate(point.threshold, one.rate) for point, one in zip(points, realised, strict=True))
    return RateData(points=rates, normals=realised[0].normals, patients=realised[0].patients)


def _rate(threshold: Threshold, rate: Estimate) -> RatePoint:
    return RatePoint(
        promised=threshold.alpha, spread=threshold.interval, realised=rate.value, low=rate.low, high=rate.high
    )


def _p_values(report: EvaluationReport) -> PValueData:
    """Return the quantiles of the p-values, all of the smallest and evenly spaced ones of the rest."""
    frame = report.p_values
    normals = int(frame["rank"].max())
    ranks = np.unique(np.round(np.geomspace(1, len(frame), P_POINTS)).astype(int)) - 1
    columns = {name: _few(frame[name].to_numpy()[ranks], 6) for name in ("expected", "observed", "low", "high")}
    return PValueData(**columns, normals=normals, guarantee=report.guarantee)


def _forest(groups: Sequence[Subgroup], result: ResultTable) -> ForestData:
    whole, counts = result.rows[0].metrics["AUROC"], result.counts
    overall = _forest_row("", "all units", counts["patients"], whole)
    places = {name: place for place, name in enumerate(dict.fromkeys(one.attribute for one in groups))}
    # Age bands in the order of age; other groups stay as they are, largest first.
    ordered = sorted(groups, key=lambda one: (places[one.attribute], one.value if one.attribute == "age_band" else ""))
    rows = (_forest_row(one.attribute, one.value, one.patients, one.auroc, one.note) for one in ordered)
    return ForestData(metric="AUROC", rows=tuple(rows), overall=overall)


def _forest_row(attribute: str, name: str, count: int, estimate: Estimate | None, note: str = "") -> ForestRow:
    if estimate is None:
        return ForestRow(attribute=attribute, name=name, count=count, note=note)
    bounds = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return ForestRow(attribute=attribute, name=name, count=count, **bounds)


def _few(values: np.ndarray | pd.Series, digits: int = 4) -> tuple[float, ...]:
    return tuple(np.round(np.asarray(values, float), digits).tolist())
