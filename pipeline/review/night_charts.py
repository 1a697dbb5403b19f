"""Charts of the night, for its page and its report, and its reasons folded by kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.charts.evidence_chart import draw_evidence
from pipeline.charts.trend_chart import DayCounts, draw_boxes, draw_counts, draw_spark
from pipeline.stages.operations.drift_watch import DriftWatch
from pipeline.stages.operations.refusal_kinds import kind_of
from pipeline.stages.operations.trends import Trends

MOST_STREAMS = 8
LAST_COLUMN = "The last column is this night."
DASHED = (
    "A dashed column stays hidden until all scans of that day that are being read blind are decided; p-values of "
    "their runs are left out."
)
BOXES = (
    "Boxes: middle half of a day's p-values, with the median; lines: 5 to 95 %. As long as scans resemble the "
    "calibration normals, a box spans 0.25 to 0.75 (dotted) and one scan in ten has p ≤ 0.1; sinking boxes mean that "
    "the scanner, the protocol or the patients have changed."
)
EVIDENCE = (
    "All nights until now. The line is the capital of a bet against the claim that nothing has changed; it raises an "
    "alarm at the dashed line, and the dotted line marks the likely day of the change."
)


def describe_trends(has_boxes: bool, held_back: bool) -> list[str]:
    """Return sentences that say how the charts of `draw_trends` are read."""
    return [LAST_COLUMN + (f" {DASHED}" if held_back else ""), *([BOXES] if has_boxes else [])]


def draw_trends(trends: Trends) -> list[dict[str, str]]:
    """Return the charts of the days before a night, each with its caption."""
    counts = [
        {"caption": data.title, "svg": draw_counts(data, f"count-{place}")} for place, data in enumerate(trends.counts)
    ]
    boxes = [
        {"caption": data.title, "svg": draw_boxes(data, f"box-{place}")} for place, data in enumerate(trends.p_values)
    ]
    return counts + boxes


def draw_watch(watch: DriftWatch) -> list[dict[str, str]]:
    """Return the charts of the evidence of drift: every stream that has changed, then the routes."""
    chosen = dict.fromkeys((*watch.changed, *(one for one in watch.streams if not one.group)))
    charts = [one.chart() for one in chosen][:MOST_STREAMS]
    return [
        {"caption": data.title, "svg": draw_evidence(data, f"evidence-{place}")} for place, data in enumerate(charts)
    ]


def fold_reasons(rows: Sequence[Mapping[str, Any]], by_day: Mapping[str, DayCounts]) -> list[dict[str, Any]]:
    """Return the reasons of a night by kind, most frequent first, each with its trend where there is one.

    Args:
        rows: code, count and example of each reason.
        by_day: counts of the last days by kind.
    """
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        kinds.setdefault(kind_of(row["code"]), []).append(row)
    folded = [
        {
            "kind": kind,
            "count": sum(row["count"] for row in reasons),
            "rows": reasons,
            "trend": draw_spark(by_day[kind], f"spark-{place}") if kind in by_day else "",
        }
        for place, (kind, reasons) in enumerate(kinds.items())
    ]
    return sorted(folded, key=lambda one: (-one["count"], one["kind"]))
