"""Evaluation report from a score table, and from pixel cases if there are masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from pipeline.detection.conformal import Threshold
from pipeline.errors import EmptySelection
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.metrics import evaluate_images
from pipeline.evaluation.pixel_alpha import AlphaChoice
from pipeline.evaluation.pixel_metrics import PixelCase, evaluate_pixels
from pipeline.evaluation.realised import p_value_quantiles, realised_fpr
from pipeline.evaluation.report import EvaluationReport, Opening, OperatingPoint
from pipeline.evaluation.results import ResultTable
from pipeline.evaluation.roc import roc_points
from pipeline.evaluation.subgroups import subgroups
from pipeline.evaluation.table import ScoreTable, select_central

PLURAL = {"slice": "all slices", "study": "all studies", "image": "all images"}


def build_report(
    scores: pd.DataFrame,
    config: EvaluationConfig,
    *,
    name: str,
    title: str = "",
    set_name: str,
    unit: str = "slice",
    members: Sequence[str] = (),
    facts: Mapping[str, str | int | float] | None = None,
    guarantee: str = "",
    thresholds: Sequence[Threshold] = (),
    n_calibration: int | None = None,
    cases: Iterable[PixelCase] | None = None,
    pixel_alpha: AlphaChoice | None = None,
    openings: Sequence[Opening] = (),
    notes: Sequence[str] = (),
) -> EvaluationReport:
    """Evaluate one detector on one labelled set.

    Args:
        scores: one row per unit, see `ScoreTable.from_frame`; the column `score` is shown as `name`.
        config: intervals and operating points.
        name: the model's name in the tables; the pixel map `name` of the cases belongs to it.
        title: title of the report; default `name`.
        set_name: develop, gate or test.
        unit: "slice" or "study". With slices that have a relative_position the central subset gets its own table.
        members: columns of an ensemble's members, which get rows below its own.
        facts, guarantee, notes: printed unchanged.
        thresholds: thresholds from the calibration; the first one is used for subgroups.
        n_calibration: number of calibration units behind the p-values, for their envelope.
        cases: pixel cases of the same set, iterated once.
        pixel_alpha: the pixel threshold of the model's map.
        openings: openings of the test set.

    Raises:
        ConfigError, EmptySelection: see `ScoreTable.from_frame` and `evaluate_pixels`.
    """
    frame = scores.rename(columns={"score": name})
    table = ScoreTable.from_frame(frame, models := (name, *members), unit)
    tables, left_out = _tables(frame, config, models, unit, table)
    if cases is not None:
        pixel_thresholds = {name: pixel_alpha.threshold} if pixel_alpha else {}
        tables.append(evaluate_pixels(cases, config, thresholds=pixel_thresholds, chosen_here=set_name == "develop"))
    return EvaluationReport(
        title=title or name,
        set_name=set_name,
        facts=dict(facts or {}),
        guarantee=guarantee,
        tables=tuple(tables),
        operating_points=tuple(_operating_point(table, name, threshold, config) for threshold in thresholds),
        pixel_alpha=pixel_alpha,
        subgroups=subgroups(table, config, column=name, threshold=thresholds[0].value if thresholds else None),
        openings=tuple(openings),
        notes=(*notes, *left_out),
        roc_points=roc_points(table),
        p_values=_p_values(table, n_calibration, config),
    )


def _tables(
    frame: pd.DataFrame, config: EvaluationConfig, models: Sequence[str], unit: str, table: ScoreTable
) -> tuple[list[ResultTable], list[str]]:
    """Return image-level tables of all units and of the central slices, and the reason if the latter is missing."""
    tables = [evaluate_images(frame, config, models=models, unit=unit, title=PLURAL[table.unit])]
    if table.unit != "slice" or "relative_position" not in frame.columns or frame["relative_position"].nunique() < 2:
        return tables, []
    low, high = config.central
    try:
        inside = select_central(frame, config)
        title = f"central slices ({low} < relative_position < {high})"
        tables.append(evaluate_images(inside, config, models=models, unit=unit, title=title))
    except EmptySelection as reason:
        return tables, [f"No table of central slices: {reason}"]
    return tables, []


def _operating_point(table: ScoreTable, name: str, threshold: Threshold, config: EvaluationConfig) -> OperatingPoint:
    normal = ~table.abnormal
    realised = realised_fpr(table.scores(name)[normal], table.patient[normal], threshold.value, config)
    return OperatingPoint(threshold=threshold, realised=realised)


def _p_values(table: ScoreTable, n_calibration: int | None, config: EvaluationConfig) -> pd.DataFrame:
    """Return QQ data of the normal units' p-values; empty if the table has no p-values."""
    if "p_value" not in table.frame.columns or table.frame["p_value"].isna().all():
        return pd.DataFrame()
    values = table.frame.loc[~table.abnormal, "p_value"].to_numpy(float)
    return p_value_quantiles(values, n_calibration, config.confidence)
