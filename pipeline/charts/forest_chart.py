"""Forest plot: one estimate with its interval in a row, by groups, beside that of all units."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate

from pydantic import field_validator

from pipeline.charts.axes import Plot, Scale, round_ticks
from pipeline.charts.svg import chart, line, mark, write
from pipeline.charts.text_size import STRONG, break_lines
from pipeline.config import Config

WIDTH, ROW, LINE, TOP, BELOW = 920.0, 22.0, 15.0, 34.0, 48.0
NAMES_X, COUNTS_X, START, END, VALUES_X = 12.0, 372.0, 394.0, 656.0, 672.0
NAMES_WIDTH, VALUES_WIDTH = 300.0, WIDTH - VALUES_X - 6.0


class ForestRow(Config):
    """One group.

    Attributes:
        attribute: that tells the groups apart; rows of one attribute follow each other.
        name: of the group.
        count: number of patients.
        value, low, high: the estimate; None if the group is too small, and in place of a number that is not finite.
        note: in place of a missing value.
    """

    attribute: str
    name: str
    count: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""

    @field_validator("value", "low", "high")
    @classmethod
    def _finite(cls, number: float | None) -> float | None:
        return number if number is not None and math.isfinite(number) else None


class ForestData(Config):
    """Groups, and the value of all units together."""

    metric: str
    rows: tuple[ForestRow, ...]
    overall: ForestRow


def draw_forest(data: ForestData, key: str) -> str:
    """Return the chart."""
    about = "; ".join(f"{one.attribute} {one.name}: {_words(one)}" for one in (data.overall, *data.rows))
    size = (WIDTH, place_forest(data).y.end + BELOW + LINE * (len(_axis_title(data)) - 1))
    return chart(key, f"{data.metric} by subgroup", f"{about}.", size, _parts(data))


def place_forest(data: ForestData) -> Plot:
    """Return the area of the chart: x from the lowest bound to 1, but at most from 0.4; y by rows from the top.

    A row whose name or note takes several lines is as many rows high as these need.
    """
    bounds = [bound for one in (data.overall, *data.rows) for bound in (one.value, one.low) if bound is not None]
    low = max(0.0, min(0.4, min(bounds, default=0.4) - 0.02))
    top = TOP + LINE * (len(_heading(data)) - 1)
    rows = sum(map(_height, _rows(data)))
    return Plot(Scale(low, 1.0, START, END), Scale(0, rows, top, top + ROW * rows))


def _rows(data: ForestData) -> list[ForestRow | str]:
    """Return the lines of the chart: the whole, then a heading for each attribute with its groups."""
    rows: list[ForestRow | str] = [data.overall]
    for place, one in enumerate(data.rows):
        if place == 0 or data.rows[place - 1].attribute != one.attribute:
            rows.append(one.attribute)
        rows.append(one)
    return rows


def _names(one: ForestRow | str) -> list[str]:
    if isinstance(one, str):
        return break_lines(one.replace("_", " "), NAMES_WIDTH / STRONG, most=2)
    return break_lines(one.name, (NAMES_WIDTH - 14) / STRONG, most=3)


def _height(one: ForestRow | str) -> float:
    """Return the height of a line of the chart in rows."""
    notes = [] if isinstance(one, str) else break_lines(_words(one), VALUES_WIDTH)
    return 1.0 + (max(len(_names(one)), len(notes)) - 1) * LINE / ROW


def _heading(data: ForestData) -> list[str]:
    return break_lines(f"{data.metric} (95 % interval)", VALUES_WIDTH, most=3)


def _axis_title(data: ForestData) -> list[str]:
    return break_lines(f"{data.metric}; dashed: all units; 0.5 is chance", END - START + 120, most=3)


def _parts(data: ForestData) -> Iterator[str]:
    plot, rows = place_forest(data), _rows(data)
    yield write(COUNTS_X, plot.y.start - 14, "patients", "end")
    yield from _column(VALUES_X, plot.y.start - 14 - LINE * (len(_heading(data)) - 1), _heading(data))
    for value in round_ticks(plot.x.low, 1.0, 5):
        x = plot.x.at(value)
        yield line("grid", x, plot.y.start, x, plot.y.end)
        yield write(x, plot.y.end + 17, f"{value:g}", "middle")
    yield line("axis", START, plot.y.end, END, plot.y.end)
    yield from _column((START + END) / 2, plot.y.end + 36, _axis_title(data), "middle")
    if data.overall.value is not None:
        x = plot.x.at(data.overall.value)
        yield line("threshold", x, plot.y.start, x, plot.y.end)
    ends = list(accumulate(map(_height, rows)))
    for one, end in zip(rows, ends, strict=True):
        yield from _row(plot, plot.y.at(end - _height(one) / 2), one, one is data.overall)


def _row(plot: Plot, y: float, one: ForestRow | str, first: bool) -> Iterator[str]:
    kind = "strong" if first or isinstance(one, str) else "label"
    yield from _centred(NAMES_X if kind == "strong" else NAMES_X + 14, y, _names(one), kind)
    if isinstance(one, str):
        return
    yield write(COUNTS_X, y + 4, f"{one.count}", "end")
    yield from _centred(VALUES_X, y, break_lines(_words(one), VALUES_WIDTH))
    if one.value is None:
        return
    if one.low is not None and one.high is not None:
        yield line("range", plot.x.at(one.low), y, plot.x.at(one.high), y)
    yield _diamond(plot.x.at(one.value), y) if first else _square(plot.x.at(one.value), y, one)


def _centred(x: float, y: float, lines: list[str], kind: str = "label") -> Iterator[str]:
    """Yield lines of text about the middle of a row."""
    yield from _column(x, y + 4 - LINE * (len(lines) - 1) / 2, lines, kind=kind)


def _column(x: float, y: float, lines: list[str], anchor: str = "start", kind: str = "label") -> Iterator[str]:
    for place, text in enumerate(lines):
        yield write(x, y + LINE * place, text, anchor, kind)


def _diamond(x: float, y: float) -> str:
    return mark(
        "path", "point", d=f"M{x - 7:.1f} {y:.1f} L{x:.1f} {y - 6:.1f} L{x + 7:.1f} {y:.1f} L{x:.1f} {y + 6:.1f} Z"
    )


def _square(x: float, y: float, one: ForestRow) -> str:
    return mark("rect", "point", f"{one.name}: {_words(one)}", x=x - 4.5, y=y - 4.5, width=9, height=9)


def _words(one: ForestRow) -> str:
    if one.value is None:
        return one.note or "not measured"
    interval = f" ({one.low:.3f} to {one.high:.3f})" if one.low is not None and one.high is not None else ""
    return f"{one.value:.3f}{interval}"
