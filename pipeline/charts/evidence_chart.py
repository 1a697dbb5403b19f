"""Chart of the evidence of drift: a bettor's capital by day on a logarithmic axis, with the line at which it alarms."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from pipeline.charts.axes import Plot, Scale, draw_axes, round_ticks
from pipeline.charts.svg import chart, line, mark, path
from pipeline.config import Config

SIZE = (600.0, 212.0)
LEFT, RIGHT, TOP, BOTTOM = 58.0, 570.0, 10.0, 186.0
LABELS = 6
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class DayEvidence(Config):
    """Capital of one stream at the end of each day with scans.

    Attributes:
        title: of the chart, such as the route and the scanner.
        days: in order.
        capital: base-10 logarithm of the capital.
        level: base-10 logarithm of the capital of an alarm.
        alarm, since: days of the alarm, and of the likely change behind it; None without one.
    """

    title: str
    days: tuple[date, ...]
    capital: tuple[float, ...]
    level: float
    alarm: date | None = None
    since: date | None = None


def draw_evidence(data: DayEvidence, key: str) -> str:
    """Return the chart as SVG; `key` keeps its ids apart from those of other charts of a page."""
    about = f"Capital against the claim that nothing has changed; alarm at {10**data.level:,.0f}. "
    if not data.days:
        return chart(key, data.title, f"{about}No scans yet.", SIZE, ())
    about += f"From {data.days[0]:%d %b %Y} to {data.days[-1]:%d %b %Y} it went to {10 ** data.capital[-1]:.3g}"
    about += f", with an alarm on {data.alarm:%d %b %Y}." if data.alarm else ", without an alarm."
    return chart(key, data.title, about, SIZE, _parts(data))


def _parts(data: DayEvidence) -> Iterator[str]:
    low, high = min(-1.0, *data.capital), max(data.level * 1.15, *data.capital)
    first, span = data.days[0], max((data.days[-1] - data.days[0]).days, 1)
    plot = Plot(Scale(0, span, LEFT, RIGHT), Scale(low, high, BOTTOM, TOP))
    places = sorted({round(step * span / (LABELS - 1)) for step in range(LABELS)})
    x_ticks = [(place, f"{date.fromordinal(first.toordinal() + place):%d %b}") for place in places]
    y_ticks = [(value, f"10{str(int(value)).translate(RAISED)}") for value in round_ticks(low, high, 5, whole=True)]
    yield from draw_axes(plot, x_ticks, y_ticks, "", "")
    yield line("threshold", LEFT, plot.y.at(data.level), RIGHT, plot.y.at(data.level))
    points = [plot.at((day - first).days, value) for day, value in zip(data.days, data.capital, strict=True)]
    yield path("model", points)
    if len(points) == 1:
        yield mark("circle", "point", cx=points[0][0], cy=points[0][1], r=3)
    for day, kind in ((data.since, "ideal"), (data.alarm, "abnormal")):
        if day is not None:
            x = plot.x.at((day - first).days)
            yield line(kind, x, TOP, x, BOTTOM)
