"""Figures of an evaluation: stateless functions from tables to curves and histograms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from pipeline.evaluation import style
from pipeline.evaluation.results import ResultTable, ScoreRow
from pipeline.evaluation.table import ScoreTable


def roc_figure(points: pd.DataFrame, result: ResultTable, band: pd.DataFrame | None = None) -> Figure:
    """Draw the ROC curves: models in colour, controls in grey, the best control named, chance dotted.

    Args:
        points: from `roc.roc_points`.
        result: provides the AUROCs of the legend.
        band: from `roc.roc_band`, of the first model.
    """
    with style.plot(4.8, 5.4) as (figure, axes):
        if band is not None:
            axes.fill_between(band["fpr"], band["low"], band["high"], color=style.MODEL, alpha=0.15, linewidth=0)
        _curves(axes, points, result, "fpr", "tpr", "AUROC")
        axes.plot([0, 1], [0, 1], ":", color=style.FAINT, linewidth=1, label="at random")
        axes.set(
            xlabel="False-positive rate", ylabel="Sensitivity", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal"
        )
        axes.set_title(f"ROC, {result.level}: {result.title}")
        figure.legend(loc="outside lower left")
    return figure


def pr_figure(points: pd.DataFrame, result: ResultTable) -> Figure:
    """Draw the precision-recall curves; the dotted line is the precision of flagging at random (the prevalence)."""
    prevalence = result.counts["abnormal"] / result.counts["units"]
    with style.plot(4.8, 5.2) as (figure, axes):
        _curves(axes, points.dropna(subset=["precision"]), result, "tpr", "precision", "AP")
        axes.axhline(
            prevalence, linestyle=":", color=style.FAINT, linewidth=1, label=f"flagging at random: {prevalence:.2f}"
        )
        axes.set(xlabel="Sensitivity (recall)", ylabel="Precision", xlim=(-0.01, 1.01), ylim=(0, 1.03))
        axes.set_title(f"Precision and recall, {result.level}: {result.title}")
        figure.legend(loc="outside lower left")
    return figure


def histogram_figure(
    table: ScoreTable, column: str = "score", threshold: float | None = None, alpha: float | None = None
) -> Figure:
    """Draw the score distribution of each class, each normalised to its size, with the threshold as a line.

    Scores beyond the 99.8th percentile are collected in the last bin, which is labelled accordingly.

    Args:
        table: validated scores.
        column: column of the score.
        threshold: units above it are flagged.
        alpha: target false-positive rate of the threshold, for its label.
    """
    scores = table.scores(column)
    low, high = float(scores.min()), float(np.quantile(scores, 0.998))
    high = max(high, threshold if threshold is not None else high)
    edges: Any = np.linspace(low, high if high > low else low + 1, 41)
    with style.plot(5.6, 3.4) as (figure, axes):
        for inside, colour, label in (
            (~table.abnormal, style.NORMAL, "normal"),
            (table.abnormal, style.ABNORMAL, "abnormal"),
        ):
            part = np.minimum(scores[inside], edges[-1])
            share = np.full(len(part), 1 / len(part))
            axes.hist(part, edges, weights=share, histtype="stepfilled", color=colour, alpha=0.25)
            axes.hist(part, edges, weights=share, histtype="step", color=colour, label=f"{label} (n = {len(part)})")
        if threshold is not None:
            target = f" for {100 * alpha:g} % false positives" if alpha is not None else ""
            axes.axvline(threshold, color=style.INK, linestyle="--", linewidth=1.2, label=f"threshold{target}")
        beyond = int(np.sum(scores > edges[-1]))
        suffix = f" (last bin includes {beyond} beyond it)" if beyond else ""
        axes.set(xlabel=f"Score{suffix}", ylabel="Share of its class")
        axes.set_title(f"Scores by class, {table.level}")
        axes.margins(x=0.01)
        axes.legend(loc="upper right")
    return figure


def p_value_figure(quantiles: pd.DataFrame, guarantee: str = "") -> Figure:
    """Draw sorted p-values of normal units against uniform ones, with the 95 % envelope, on logarithmic axes.

    Args:
        quantiles: from `realised.p_value_quantiles`.
        guarantee: guarantee of the p-values, printed below the title.
    """
    with style.plot() as (figure, axes):
        expected = quantiles["expected"]
        label = "95 % envelope of exchangeable normals"
        axes.fill_between(
            expected,
            quantiles["low"],
            quantiles["high"],
            color=style.CONTROL_GREY,
            alpha=0.45,
            linewidth=0,
            label=label,
        )
        axes.plot(expected, expected, ":", color=style.FAINT, linewidth=1, label="ideal")
        axes.plot(expected, quantiles["observed"], "o", markersize=3, color=style.MODEL, label="observed")
        least = float(min(expected.min(), quantiles["low"].min(), quantiles["observed"].min()))
        axes.set(xscale="log", yscale="log", xlim=(expected.min() * 0.9, 1.1), ylim=(least * 0.9, 1.1))
        axes.set(xlabel="Expected p-value", ylabel="Observed p-value of normal units")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_title(
            "p-values of normals against their guarantee" + (f"\n{guarantee}" if guarantee else ""), fontsize=10
        )
        axes.text(
            0.97,
            0.05,
            "below the band:\nmore false alarms than guaranteed",
            transform=axes.transAxes,
            ha="right",
            va="bottom",
            fontsize=8.5,
            color=style.FAINT,
        )
        axes.legend(loc="upper left")
    return figure


def _curves(axes: Axes, points: pd.DataFrame, result: ResultTable, x: str, y: str, metric: str) -> None:
    """Draw all curves: models in colour on top, the best control dark grey and named, the other controls light grey."""
    curves = {str(name): (frame[x], frame[y]) for name, frame in points.groupby("score", sort=False)}
    models = [row for row in result.rows if not row.control]
    label: str | None
    for row, colour in zip(models, style.MODEL_COLOURS * len(models), strict=False):
        label = f"{row.name}\n{metric} {row.metrics[metric].text(2)}"
        axes.plot(*curves[row.name], color=colour, zorder=4, label=label)
    best: ScoreRow | None
    others: list[ScoreRow | None]
    best, *others = [*_strongest([row for row in result.rows if row.control], metric), None]
    if best is not None:
        label = f"best control: {best.name}\n{metric} {best.metrics[metric].text(2)}"
        axes.plot(*curves[best.name], color=style.BEST_CONTROL, linewidth=1.4, zorder=3, label=label)
    names = [row.name for row in others if row is not None]
    for place, name in enumerate(names):
        label = f"{len(names)} other control{'s' * (len(names) > 1)}" if place == 0 else None
        axes.plot(*curves[name], color=style.CONTROL_GREY, linewidth=0.9, zorder=2, label=label)


def _strongest(controls: list[ScoreRow], metric: str) -> list[ScoreRow]:
    """Return the controls in their better direction only, best first."""
    names = {row.name for row in controls}
    better = [row for row in controls if f"negative {row.name}" not in names]
    return sorted(better, key=lambda row: -row.metrics[metric].value)
