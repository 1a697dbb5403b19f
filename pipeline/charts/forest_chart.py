"""Forest plot: one estimate with its interval in a row, by groups, beside that of all units."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.charts.axes import Plot, Scale, round_ticks
from pipeline.charts.svg import chart, line, mark, write
from pipeline.config import Config

WIDTH, ROW, TOP, BELOW = 920.0, 22.0, 34.0, 48.0
NAMES_X, COUNTS_X, START, END, VALUES_X = 12.0, 372.0, 394.0, 716.0, 732.0
LONGEST = 40  # characters of a group's name


class ForestRow(Config):
    """One group.

    Attributes:
        attribute: that tells the groups apart; rows of one attribute follow each other.
        name: of the group.
        count: number of patients.
        value, low, high: the estimate; None if the group is too small.
        note: in place of a missing value.
    """

    attribute: str
    name: str
    count: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""


class ForestData(Config):
    """Groups, and the value of all units together."""

    metric: str
    rows: tuple[ForestRow, ...]
    overall: ForestRow


def draw_forest(data: ForestData, key: str) -> str:
    """Return the chart."""
    about = "; ".join(f"{one.attribute} {one.name}: {_words(one)}" for one in (data.overall, *data.rows))
    size = (WIDTH, TOP + ROW * len(_rows(data)) + BELOW)
    return chart(key, f"{data.metric} by subgroup", f"{about}.", size, _parts(data))


def place_forest(data: ForestData) -> Plot:
    """Return the area of the chart: x from the lowest bound to 1, but at most from 0.4; y by rows from the top."""
    bounds = [bound for one in (data.overall, *data.rows) for bound in (one.value, one.low) if bound is not None]
    low = max(0.0, min(0.4, min(bounds, default=0.4) - 0.02))
    count = len(_rows(data))
    return Plot(Scale(low, 1.0, START, END), Scale(0, count, TOP, TOP + ROW * count))


def _rows(data: ForestData) -> list[ForestRow | str]:
    """Return the lines of the chart: the whole, then a heading for each attribute with its groups."""
    rows: list[ForestRow | str] = [data.overall]
    for place, one in enumerate(data.rows):
        if place == 0 or data.rows[place - 1].attribute != one.attribute:
            rows.append(one.attribute)
        rows.append(one)
    return rows


def _parts(data: ForestData) -> Iterator[str]:
    plot, rows = place_forest(data), _rows(data)
    yield write(COUNTS_X, TOP - 14, "patients", "end")
    yield write(VALUES_X, TOP - 14, f"{data.metric} (95 % interval)")
    for value in round_ticks(plot.x.low, 1.0, 5):
        x = plot.x.at(value)
        yield line("grid", x, plot.y.start, x, plot.y.end)
        yield write(x, plot.y.end + 17, f"{value:g}", "middle")
    yield line("axis", START, plot.y.end, END, plot.y.end)
    yield write((START + END) / 2, plot.y.end + 36, f"{data.metric}; dashed: all units; 0.5 is chance", "middle")
    if data.overall.value is not None:
        x = plot.x.at(data.overall.value)
        yield line("threshold", x, plot.y.start, x, plot.y.end)
    for place, one in enumerate(rows):
        yield from _row(plot, plot.y.at(place + 0.5), one, place == 0)


def _row(plot: Plot, y: float, one: ForestRow | str, first: bool) -> Iterator[str]:
    if isinstance(one, str):
        yield write(NAMES_X, y + 4, one.replace("_", " "), kind="strong")
        return
    name = one.name if len(one.name) <= LONGEST else f"{one.name[: LONGEST - 1]}…"
    yield write(NAMES_X if first else NAMES_X + 14, y + 4, name, kind="strong" if first else "label")
    yield write(COUNTS_X, y + 4, f"{one.count}", "end")
    yield write(VALUES_X, y + 4, _words(one))
    if one.value is None:
        return
    if one.low is not None and one.high is not None:
        yield line("range", plot.x.at(one.low), y, plot.x.at(one.high), y)
    yield _diamond(plot.x.at(one.value), y) if first else _square(plot.x.at(one.value), y, one)


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
