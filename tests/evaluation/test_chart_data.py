"""Numbers behind the charts: those of the report, and few enough to be stored."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from pipeline.detection.conformal import Threshold
from pipeline.evaluation.build import build_report
from pipeline.evaluation.chart_data import BINS, ChartData, build_charts
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.metric_words import describe_metric
from pipeline.evaluation.report import EvaluationReport
from pipeline.evaluation.report_page import page_tables, write_page
from pipeline.evaluation.table import ScoreTable

CONFIG = EvaluationConfig(resamples=100)
UNITS = 400


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """400 images of 400 patients; the control is worse than chance, so its negative is the better direction."""
    rng = np.random.default_rng(3)
    abnormal = np.arange(UNITS) % 2 == 1
    return pd.DataFrame(
        {
            "unit_id": [f"u{n}" for n in range(UNITS)],
            "patient_id": [f"p{n:03d}" for n in range(UNITS)],
            "label": np.where(abnormal, "abnormal", "normal"),
            "score": rng.normal(size=UNITS) + 2 * abnormal,
            "control:size": rng.normal(size=UNITS) - 0.5 * abnormal,
            "control:noise": rng.normal(size=UNITS),
            "sex": np.where(np.arange(UNITS) % 4 < 2, "F", "M"),
            "p_value": rng.uniform(0.01, 1, UNITS),
        }
    )


@pytest.fixture(scope="module")
def report(frame: pd.DataFrame) -> EvaluationReport:
    """Its report with two thresholds."""
    thresholds = [Threshold(v, a, 99, int(100 * a), a, (0.0, 2 * a), "conformal") for v, a in ((1.6, 0.05), (1.3, 0.1))]
    return build_report(
        frame, CONFIG, name="ae", set_name="develop", unit="study", guarantee="conformal", thresholds=thresholds,
        n_calibration=99, facts={"run": "r", "route": "mr"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def charts(report: EvaluationReport, frame: pd.DataFrame) -> ChartData:
    """Its charts."""
    table = ScoreTable.from_frame(frame.rename(columns={"score": "ae"}), ("ae",), "study")
    return build_charts(report, table, "ae", CONFIG)


def test_curves_have_the_areas_of_the_report(charts: ChartData, report: EvaluationReport) -> None:
    assert [(one.name, one.part) for one in charts.roc.curves[:2]] == [
        ("ae", "model"), ("negative size", "best control")
    ]  # fmt: skip
    assert {one.name for one in charts.roc.curves} & {"size"} == set(), "the worse direction of a control"
    for curve in charts.roc.curves:
        area = np.trapezoid(curve.tpr, curve.fpr)
        assert area == pytest.approx(report.tables[0].row(curve.name).metrics["AUROC"].value, abs=0.006)
        assert curve.fpr[0] == curve.tpr[0] == 0 and curve.fpr[-1] == curve.tpr[-1] == 1
    band = charts.roc.band
    assert band is not None and all(low <= high for low, high in zip(band.low, band.high, strict=True))


def test_shares_and_rates_are_those_of_the_scores(charts: ChartData, frame: pd.DataFrame) -> None:
    assert len(charts.scores.normal) == BINS and sum(charts.scores.normal) == pytest.approx(1, abs=0.01)
    assert sum(charts.scores.abnormal) == pytest.approx(1, abs=0.01)
    assert [one.value for one in charts.scores.thresholds] == [1.6, 1.3]
    normal = frame.loc[frame["label"] == "normal", "score"]
    assert charts.rates is not None and charts.rates.normals == 200
    assert [point.realised for point in charts.rates.points] == [float((normal > t).mean()) for t in (1.6, 1.3)]
    assert charts.p_values is not None and charts.p_values.normals == 200
    assert charts.subgroups is not None and {row.name for row in charts.subgroups.rows} == {"F", "M"}


def test_they_are_small_and_survive_json(charts: ChartData) -> None:
    text = charts.model_dump_json()
    assert len(text) < 60_000
    assert ChartData.model_validate(json.loads(text)) == charts


def test_the_page_has_charts_before_folded_tables(charts: ChartData, report: EvaluationReport) -> None:
    page = write_page(report, charts)
    assert page.count("<svg") == 5 and page.rindex("<svg") < page.index("<details")
    assert page.count("<details") == len(list(page_tables(report))) == 3
    assert "sens@" not in page and "sensitivity at 90 % specificity" in page
    assert "src=" not in page and "href=" not in page, "it loads nothing"
    ids = [
        one.get("id")
        for svg in charts.draw("k").values()
        for one in ElementTree.fromstring(svg).iter()
        if one.get("id")
    ]
    assert len(ids) == len(set(ids)) == 10


@pytest.mark.parametrize(
    ("name", "words"), [("sens@90", "sensitivity at 90 % specificity"), ("AUROC", "AUROC"), ("PRO@30", "PRO@30")]
)
def test_metrics_in_words(name: str, words: str) -> None:
    assert describe_metric(name) == words
