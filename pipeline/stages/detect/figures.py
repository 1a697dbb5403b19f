"""Figures of an evaluation: curves from the report, panels from scans that may be displayed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline.data.images.dataset import SliceDataset
from pipeline.detection.scorer import Scorer
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.burned_in import figures_allowed
from pipeline.errors import ConfigError
from pipeline.evaluation.chart_data import ChartData
from pipeline.evaluation.curves import histogram_figure, p_value_figure, pr_figure, roc_figure
from pipeline.evaluation.panels import Panel, draw_panels, in_words
from pipeline.evaluation.report import EvaluationReport
from pipeline.evaluation.table import ScoreTable
from pipeline.stages.run.score_slices import scored_slices
from pipeline.types import SliceRef, SliceResult

Draw = Callable[[], Figure]
Policy = Literal["reject", "no-figures", "accept"]
ABNORMAL_SHOWN = 3


def figures(report: EvaluationReport, table: ScoreTable, charts: ChartData, name: str) -> dict[str, Draw]:
    """Return the drawing function of each curve, by file name.

    Args:
        report: the finished report; its first table provides the legends.
        table: the scores behind it.
        charts: provides the band of the ROC curve.
        name: name of the model.
    """
    first = report.operating_points[0].threshold if report.operating_points else None
    band = None if charts.roc.band is None else pd.DataFrame(charts.roc.band.model_dump())
    drawn: dict[str, Draw] = {
        "roc": partial(roc_figure, report.roc_points, report.tables[0], band),
        "precision_recall": partial(pr_figure, report.roc_points, report.tables[0]),
        "scores": partial(
            histogram_figure, table, name, first.value if first else None, first.alpha if first else None
        ),
    }
    if not report.p_values.empty:
        drawn["p_values"] = partial(p_value_figure, report.p_values, report.guarantee)
    return drawn


def shown_slices(refs: Iterable[SliceRef], slices: pd.DataFrame, policy: Policy) -> tuple[SliceRef, ...]:
    """Choose the slices of a panel, one per patient: the highest abnormal scores and a median normal one.

    Only slices that pass the burned-in-text policy leave the store.
    """
    allowed = {r.slice_id: r for r in refs if figures_allowed(InstanceAttributes.from_json(r.attributes), policy)}
    usable = slices[slices["unit_id"].isin(allowed.keys())].sort_values("score", ascending=False)
    one_each = {label: rows.drop_duplicates("patient_id")["unit_id"] for label, rows in usable.groupby("label")}
    sick, sound = (one_each.get(label, pd.Series(dtype=str)) for label in ("abnormal", "normal"))
    middle = len(sound) // 2
    return tuple(allowed[name] for name in (*sick.iloc[:ABNORMAL_SHOWN], *sound.iloc[middle : middle + 1]))


def draw_every_slice(detector: Scorer, data: SliceDataset) -> Figure | None:
    """Draw every slice of a (small) data set; return None if the method has no map or nothing may be displayed."""
    if not detector.has_maps or len(data) == 0:
        return None
    rows = [
        read_panel(item, detector, data, in_words(item.score, label=data.ref(item.id).label), data.read_mask(item.id))
        for item in scored_slices(detector, data)
    ]
    return draw_panels(rows)


def read_panel(
    item: SliceResult, detector: Scorer, data: SliceDataset, caption: str, mask: np.ndarray | None = None
) -> Panel:
    """Return one slice for display: in physical units on its native grid, with its mask bool [H, W] if known."""
    native = detector.native(item)
    if native.values is None:
        raise ConfigError("The detector should give maps but did not. Check its method.")
    image, model = data.read_plane(item.id).pixels, native.reconstruction
    return Panel(
        image=image,
        heatmap=native.values,
        caption=caption,
        # Outside the body, the model's output is not used, so it is not displayed.
        reconstruction=None if model is None else np.where(native.body, model, image),
        mask=mask,
        body=native.body,
    )
