"""Charts over days: bars of counts, boxes of p-values, and a sparkline for a line of a table.

A day whose value a reader must not see yet is drawn the same whatever its value is: it has no value here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

from pipeline.charts.axes import Plot, Scale, Ticks, draw_axes, round_ticks
from pipeline.charts.svg import chart, line, mark
from pipeline.config import Config

SIZE = (600.0, 212.0)
LEFT, RIGHT, TOP, BOTTOM = 58.0, 580.0, 10.0, 186.0
SPARK = (140.0, 24.0)
WEEK = 7
HELD_BACK = "not shown until decided"


class DayCounts(Config):
    """A count on each of consecutive days; None where it is held back.

    Attributes:
        title: of the chart, such as "Images that arrived".
        unit: counted, in the plural.
        days: in order, without gaps; the last one is the chosen day.
        values: one for each day.
    """

    title: str
    unit: str
    days: tuple[date, ...]
    values: tuple[int | None, ...]


class DayBox(Config):
    """p-values of one day: 5, 25, 50, 75 and 95 per cent quantiles of so many studies."""

    day: date
    studies: int
    quantiles: tuple[float, float, float, float, float]


class DayBoxes(Config):
    """p-values of a route by day; days without a box had no scores, or none to show."""

    title: str
    days: tuple[date, ...]
    boxes: tuple[DayBox, ...]


def draw_counts(data: DayCounts, key: str) -> str:
    """Return the bar chart of a count by day."""
    return chart(key, f"{data.title} by day", _about(data), SIZE, _count_parts(data))


def draw_spark(data: DayCounts, key: str) -> str:
    """Return the same as bars without axes, for a line of a table."""
    return chart(key, f"{data.title} by day", _about(data), SPARK, _spark_parts(data))


def draw_boxes(data: DayBoxes, key: str) -> str:
    """Return the box chart of p-values by day, between dotted lines at the quartiles of normal scans."""
    medians = ", ".join(f"{_day(box.day)} {box.quantiles[2]:.2f} of {box.studies} studies" for box in data.boxes)
    about = f"Median p-value by day; normal scans have 0.5: {medians or 'no days to show'}."
    return chart(key, data.title, about, SIZE, _box_parts(data))


def place_days(days: Sequence[date], top: float) -> Plot:
    """Return the area of a chart: x with one place for each day, from 0 to their number; y from 0 to `top`."""
    return Plot(Scale(0, len(days), LEFT, RIGHT), Scale(0, top, BOTTOM, TOP))


def _about(data: DayCounts) -> str:
    days = [(day, value) for day, value in zip(data.days, data.values, strict=True) if value != 0]
    said = ", ".join(f"{_day(day)} {HELD_BACK if value is None else value}" for day, value in days)
    return f"{data.unit.capitalize()} from {_day(data.days[0])} to {_day(data.days[-1])}: {said or 'none'}."


def _highest(data: DayCounts) -> int:
    return max([1, *(value for value in data.values if value is not None)])


def _count_parts(data: DayCounts) -> Iterator[str]:
    plot = place_days(data.days, _highest(data) * 1.08)
    ticks = [(value, f"{value:g}") for value in round_ticks(0, plot.y.high, 5, whole=True)]
    yield from draw_axes(plot, _day_ticks(data.days), ticks, "", data.unit)
    for place, value in enumerate(data.values):
        yield from _bar(plot, data, place, value)


def _bar(plot: Plot, data: DayCounts, place: int, value: int | None) -> Iterator[str]:
    x, width = plot.x.at(place + 0.12), plot.x.at(0.76) - plot.x.at(0)
    day = _day(data.days[place])
    if value is None:
        yield mark("rect", "held-back", f"{day}: {HELD_BACK}", x=x, y=TOP, width=width, height=BOTTOM - TOP)
    elif value:
        y, kind = plot.y.at(value), "bar-chosen" if place == len(data.days) - 1 else "bar"
        yield mark("rect", kind, f"{day}: {value} {data.unit}", x=x, y=y, width=width, height=BOTTOM - y)


def _spark_parts(data: DayCounts) -> Iterator[str]:
    width, height = SPARK
    plot = Plot(Scale(0, len(data.days), 0, width), Scale(0, _highest(data), height - 1, 2))
    yield line("axis", 0, height - 0.5, width, height - 0.5)
    for place, value in enumerate(data.values):
        if value:
            y, bar = plot.y.at(value), 0.8 * width / len(data.days)
            kind = "bar-chosen" if place == len(data.days) - 1 else "bar"
            yield mark("rect", kind, x=plot.x.at(place + 0.1), y=y, width=bar, height=height - 1 - y)


def _box_parts(data: DayBoxes) -> Iterator[str]:
    plot = place_days(data.days, 1.0)
    ticks = [(share, f"{share:g}") for share in (0, 0.25, 0.5, 0.75, 1)]
    yield from draw_axes(plot, _day_ticks(data.days), ticks, "", "p-value")
    for quartile in (0.25, 0.75):
        yield line("ideal", LEFT, plot.y.at(quartile), RIGHT, plot.y.at(quartile))
    for box in data.boxes:
        yield from _box(plot, box, data.days.index(box.day))


def _box(plot: Plot, box: DayBox, place: int) -> Iterator[str]:
    low, quarter, median, three_quarters, high = (plot.y.at(value) for value in box.quantiles)
    left, right, middle = (plot.x.at(place + share) for share in (0.12, 0.88, 0.5))
    tip = f"{_day(box.day)}: {box.studies} studies, median p-value {box.quantiles[2]:.2f}"
    yield line("range", middle, low, middle, high)
    height = max(quarter - three_quarters, 1.0)
    yield mark("rect", "box", tip, x=left, y=three_quarters, width=right - left, height=height)
    yield line("middle", left, median, right, median)


def _day_ticks(days: Sequence[date]) -> Ticks:
    """Return a label below the last day, and below every seventh before it."""
    last = len(days) - 1
    return [(place + 0.5, _day(days[place])) for place in range(last % WEEK, last + 1, WEEK)]


def _day(day: date) -> str:
    return f"{day:%d %b}"
