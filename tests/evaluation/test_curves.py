"""Figures: they render, say what they must in words, keep no state, and equal inputs give equal files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from pipeline.errors import EmptySelection
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.curves import histogram_figure, p_value_figure, pr_figure, roc_figure
from pipeline.evaluation.metrics import evaluate_images
from pipeline.evaluation.panels import Panel, draw_panels, in_words
from pipeline.evaluation.realised import p_value_quantiles
from pipeline.evaluation.roc import roc_band, roc_points
from pipeline.evaluation.style import save_png
from pipeline.evaluation.table import ScoreTable

MakeScores = Callable[..., pd.DataFrame]


@pytest.fixture
def frame(make_scores: MakeScores) -> pd.DataFrame:
    """Scores with three controls, one of them below a half."""
    frame, rng = make_scores(), np.random.default_rng(0)
    sick = frame["label"] == "abnormal"
    for name, shift in (("std", 0.2), ("energy", -0.9), ("position", 0.1)):
        frame[f"control:{name}"] = rng.normal(size=len(frame)) + shift * sick
    return frame


def words(figure: Figure) -> str:
    legends = [legend for axes in figure.axes if (legend := axes.get_legend())] + list(figure.legends)
    texts = [text.get_text() for legend in legends for text in legend.get_texts()]
    for axes in figure.axes:
        texts += [axes.get_title(loc="left"), axes.get_title(), axes.get_xlabel(), axes.get_ylabel()]
        texts += [text.get_text() for text in axes.texts]
    return "\n".join(texts)


def test_roc_names_the_model_and_the_best_control(frame: pd.DataFrame, quick: EvaluationConfig, tmp_path: Path) -> None:
    table, result = ScoreTable.from_frame(frame), evaluate_images(frame, quick, title="all slices")
    figure = roc_figure(roc_points(table), result, roc_band(table, "score", quick))
    text = words(figure)
    assert "ROC, slice level: all slices" in text
    assert f"score\nAUROC {result.row('score').metrics['AUROC'].text(2)}" in text
    assert "best control: negative energy" in text and "2 other controls" in text
    assert figure.axes[0].get_legend() is None  # it is placed below: inside, it would cover the curves of the controls
    assert save_png(figure, tmp_path / "new" / "roc.png").stat().st_size > 10_000


def test_precision_recall_shows_the_prevalence(frame: pd.DataFrame, quick: EvaluationConfig) -> None:
    text = words(pr_figure(roc_points(ScoreTable.from_frame(frame)), evaluate_images(frame, quick)))
    assert f"at random: {(frame['label'] == 'abnormal').mean():.2f}" in text


def test_histogram_shows_both_classes_and_the_threshold(frame: pd.DataFrame) -> None:
    figure = histogram_figure(ScoreTable.from_frame(frame), threshold=1.5, alpha=0.05)
    text = words(figure)
    normal = int((frame["label"] == "normal").sum())
    assert f"normal (n = {normal})" in text and "threshold for 5 % false positives" in text
    heights = [patch.get_height() for patch in figure.axes[0].patches if hasattr(patch, "get_height")]
    assert heights == [] or max(heights) <= 1


def test_histogram_says_what_lies_beyond_and_takes_equal_scores(frame: pd.DataFrame) -> None:
    frame.loc[0, "score"] = 1e6
    assert "last bin includes 1 beyond it" in words(histogram_figure(ScoreTable.from_frame(frame)))
    assert "beyond" not in words(histogram_figure(ScoreTable.from_frame(frame.assign(score=1.0))))


def test_p_value_figure_prints_the_guarantee() -> None:
    figure = p_value_figure(p_value_quantiles(np.random.default_rng(0).random(50), 100), "empirical, clustered")
    text = words(figure)
    assert "empirical, clustered" in text and "more false alarms than guaranteed" in text


def test_equal_inputs_give_equal_files(frame: pd.DataFrame, tmp_path: Path) -> None:
    table = ScoreTable.from_frame(frame)
    first, second = (save_png(histogram_figure(table), tmp_path / f"{i}.png").read_bytes() for i in range(2))
    assert first == second


def test_no_figure_registers_itself_globally(frame: pd.DataFrame) -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    histogram_figure(ScoreTable.from_frame(frame))
    assert plt.get_fignums() == before


def test_roc_points_start_at_zero_and_end_at_one(frame: pd.DataFrame) -> None:
    points = roc_points(ScoreTable.from_frame(frame))
    assert set(points["score"]) == {"score", "std", "energy", "negative energy", "position"}
    for _, curve in points.groupby("score"):
        assert (curve["fpr"].iloc[0], curve["tpr"].iloc[0], curve["threshold"].iloc[0]) == (0, 0, np.inf)
        assert (curve["fpr"].iloc[-1], curve["tpr"].iloc[-1]) == (1, 1)
        assert (curve[["fpr", "tpr"]].diff().dropna() >= 0).all().all()


def test_the_roc_band_holds_the_curve(frame: pd.DataFrame, quick: EvaluationConfig) -> None:
    table = ScoreTable.from_frame(frame)
    band, points = roc_band(table, "score", quick), roc_points(table)
    curve = points[points["score"] == "score"]
    tpr = [curve[curve["fpr"] <= fpr + 1e-12]["tpr"].max() for fpr in band["fpr"]]
    inside = (band["low"] <= tpr) & (tpr <= band["high"])
    assert inside.mean() > 0.95 and (band["low"] <= band["high"]).all()


@pytest.mark.parametrize(
    ("p_value", "expected"), [(0.004, "4 in 1 000"), (0.03, "3 in 100"), (0.5, "50 in 100"), (0.0002, "2 in 10 000")]
)
def test_p_values_in_words(p_value: float, expected: str) -> None:
    text = in_words(0.031, p_value, True, "abnormal")
    assert text.split("\n") == [
        "abnormal",
        "flagged",
        f"{expected} normals score as high (p = {p_value:.2g})",
        "score 0.031",
    ]
    assert in_words(2.0) == "score 2"
    assert "not flagged" in in_words(2.0, flagged=False)


def test_panels_render_what_they_have(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image, mask = rng.random((40, 30)), np.zeros((40, 30), bool)
    mask[10:20, 10:20] = True
    full = Panel(image, image, "flagged", image, mask, np.ones_like(mask))
    bare = Panel(image, np.zeros_like(image), "not flagged")
    both = draw_panels([full, bare], "title")
    assert [axes.get_title() for axes in both.axes[:4]] == ["scan", "as if it were normal", "anomaly map", "label"]
    assert "flagged" in words(both)
    assert [len(axes.child_axes) for axes in both.axes[:8]] == [0, 0, 0, 0, 0, 0, 1, 0]  # the colour bar, once
    assert [axes.get_legend() is not None for axes in both.axes[:8]] == [False] * 7 + [True]
    alone = draw_panels([bare])
    assert [axes.get_title() for axes in alone.axes[:2]] == ["scan", "anomaly map"]
    assert all(axes.get_legend() is None for axes in alone.axes)
    with Image.open(save_png(both, tmp_path / "panels.png")) as picture:
        assert picture.width > 800
        assert "Software" not in picture.info
    with pytest.raises(EmptySelection):
        draw_panels([])
