"""Log of the watch over drift in MLflow: one run per route and day, with the chart, the numbers and the words."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from pipeline.charts.evidence_chart import draw_evidence
from pipeline.config import Settings
from pipeline.stages.operations.drift_watch import DriftWatch, WatchedStream
from pipeline.tracking.experiment import track


def log_drift(settings: Settings, watch: DriftWatch, routes: Collection[str]) -> None:
    """Log the streams of these routes, each route into the experiment of its models, under the day of its last scan.

    The same day again continues its run: that of a night whose end was not noted, or a later night of the same day.

    Raises:
        ConfigError: the tracking store cannot be opened.
    """
    for route in sorted(routes):
        streams = [one for one in watch.streams if one.route == route]
        if not streams:
            continue
        statistics = [one for one in watch.statistics if one.route == route]
        about = " ".join(one.sentence() for one in streams if not one.group)
        whole = next(one.evidence for one in streams if not one.group)
        name = f"drift {whole.days[-1]}"
        with track(settings, route, name, system_metrics=False, about=about, one_of_its_name=True) as tracked:
            for number, one in enumerate(streams):
                tracked.log_text(draw_evidence(one.chart(), f"stream-{number}"), f"drift/{number:02d}.svg")
            tracked.log_metrics({"drift/log10_capital": whole.capital[-1], "drift/alarms": _count(streams)})
            rows = {"streams": [one.to_json() for one in streams], "statistics": [one.to_json() for one in statistics]}
            tracked.log_text(json.dumps(rows, indent=1), "drift/streams.json")
            tracked.log_tags({"drift": "changed" if _count(streams) else "no change shown"})


def _count(streams: Sequence[WatchedStream]) -> int:
    return sum(one.evidence.alarm is not None for one in streams)
