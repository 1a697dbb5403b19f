"""Coordinates of the drift chart, for a template that draws it as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.stages.operations.drift import Drift

WIDTH, HEIGHT = 720, 170
TOP, BOTTOM, LEFT = 8, 160, 34
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
EXPECTED = (0.25, 0.75)


def drift_plot(runs: Sequence[Drift]) -> dict[str, Any]:
    """Return the coordinates of one route's chart, and its runs for the table, newest first."""
    plotted = [run for run in runs if run.p]
    step = (WIDTH - LEFT) / max(len(plotted), 8)
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "lines": [{"y": _y(tick), "words": f"{tick:g}", "marked": tick in EXPECTED} for tick in TICKS],
        "boxes": [_box(run, LEFT + step * (place + 0.5)) for place, run in enumerate(plotted)],
        "rows": list(reversed(runs)),
    }


def _box(run: Drift, x: float) -> dict[str, Any]:
    low, quarter, median, three_quarters, high = run.p
    return {
        "x": round(x, 1),
        "top": _y(high),
        "bottom": _y(low),
        "high": _y(three_quarters),
        "tall": round(max(_y(quarter) - _y(three_quarters), 1.0), 1),
        "middle": _y(median),
        "words": f"{run.at:%d %b %H:%M}: {run.studies} studies, median p {median:.2f}",
    }


def _y(p_value: float) -> float:
    return round(BOTTOM - p_value * (BOTTOM - TOP), 1)
