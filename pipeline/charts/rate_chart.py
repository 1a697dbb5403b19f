"""Charts of a calibration: promised against realised false-positive rates, and p-values of normals against uniform."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.charts.axes import Plot, Scale, draw_axes, log_ticks, percent, round_ticks
from pipeline.charts.svg import chart, line, mark, path, write
from pipeline.config import Config

SIZE = (600.0, 372.0)
LEFT, RIGHT, TOP, BOTTOM = 66.0, 586.0, 36.0, 326.0


class RatePoint(Config):
    """One threshold: the rate that it promises, and the rate on these normals, each with its 95 % interval.

    Attributes:
        promised: target false-positive rate.
        spread: of the rate that calibrations with so many normals give; None without a guarantee.
        realised: share of normals above the threshold.
        low, high: interval of the realised rate; None if it has none.
    """

    promised: float
    spread: tuple[float, float] | None = None
    realised: float
    low: float | None = None
    high: float | None = None


class RateData(Config):
    """Thresholds measured on the same normals."""

    points: tuple[RatePoint, ...]
    normals: int
    patients: int


class PValueData(Config):
    """Sorted p-values of normals against those of a uniform distribution, with their 95 % envelope.

    Attributes:
        expected, observed, low, high: of each rank.
        normals: number of p-values.
        guarantee: that the p-values have.
    """

    expected: tuple[float, ...]
    observed: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    normals: int
    guarantee: str = ""


def draw_rates(data: RateData, key: str) -> str:
    """Return the chart of promised against realised rates."""
    rates = "; ".join(f"promised {percent(p.promised)}, realised {_interval(p)}" for p in data.points)
    about = f"On {data.normals} normal units of {data.patients} patients: {rates}."
    return chart(key, "Promised and realised false-positive rate", about, SIZE, _rate_parts(data))


def place_rates(data: RateData) -> Plot:
    """Return the area of the chart, from 0 to a little above everything that is drawn."""
    promised = max(p.promised for p in data.points)
    highest = max(max(p.promised, p.realised, p.high or 0, p.spread[1] if p.spread else 0) for p in data.points)
    right, top = min(1.0, 1.25 * promised), min(1.0, 1.08 * highest)
    return Plot(Scale(0, right, LEFT, RIGHT), Scale(0, top, BOTTOM, TOP))


def _rate_parts(data: RateData) -> Iterator[str]:
    plot = place_rates(data)
    x_ticks = [(value, percent(value)) for value in round_ticks(0, plot.x.high, 5)]
    y_ticks = [(value, percent(value)) for value in round_ticks(0, plot.y.high, 5)]
    yield from draw_axes(plot, x_ticks, y_ticks, "Promised false-positive rate", "Realised on normals")
    end = min(plot.x.high, plot.y.high)
    yield line("ideal", *plot.at(0, 0), *plot.at(end, end))
    for point in data.points:
        yield from _rate(plot, point)
    yield from _legend(
        ("ideal", "as promised"), ("spread", "95 % of calibrations"), ("range", "realised, 95 % interval")
    )


def _rate(plot: Plot, point: RatePoint) -> Iterator[str]:
    x, y = plot.at(point.promised, point.realised)
    if point.spread is not None:
        yield line("spread", x, plot.y.at(point.spread[0]), x, plot.y.at(point.spread[1]))
    if point.low is not None and point.high is not None:
        yield line("range", x, plot.y.at(point.low), x, plot.y.at(point.high))
    yield mark("circle", "point", f"promised {percent(point.promised)}: {_interval(point)}", cx=x, cy=y, r=5)


def _interval(point: RatePoint) -> str:
    value = f"{100 * point.realised:.1f} %"
    if point.low is None or point.high is None:
        return value
    return f"{value} ({100 * point.low:.1f} to {100 * point.high:.1f} %)"


def draw_p_values(data: PValueData, key: str) -> str:
    """Return the chart of p-values of normals against uniform ones, both axes logarithmic."""
    below = sum(seen < low for seen, low in zip(data.observed, data.low, strict=True))
    about = (
        f"{data.normals} p-values of normal units, sorted, beside those of a uniform distribution: {below} of "
        f"{len(data.observed)} points lie below the 95 % envelope, where there are more false alarms than promised."
    )
    return chart(key, "p-values of normal units", about, SIZE, _p_parts(data))


def place_p_values(data: PValueData) -> Plot:
    """Return the area of the chart, from the smallest p-value to 1."""
    least = 0.85 * min((*data.expected, *data.observed, *data.low))
    return Plot(Scale(least, 1.0, LEFT, RIGHT, log=True), Scale(least, 1.0, BOTTOM, TOP, log=True))


def _p_parts(data: PValueData) -> Iterator[str]:
    plot = place_p_values(data)
    ticks = [(value, f"{value:g}") for value in log_ticks(plot.x.low, 1.0)]
    yield from draw_axes(plot, ticks, ticks, "Expected p-value (uniform)", "Observed p-value of normals")
    upper = [plot.at(x, y) for x, y in zip(data.expected, data.high, strict=True)]
    lower = [plot.at(x, y) for x, y in zip(data.expected, data.low, strict=True)]
    yield path("band", [*upper, *reversed(lower)], closed=True)
    yield line("ideal", *plot.at(plot.x.low, plot.x.low), *plot.at(1, 1))
    for x, y in zip(data.expected, data.observed, strict=True):
        cx, cy = plot.at(x, y)
        yield mark("circle", "point", cx=cx, cy=cy, r=2.5)
    yield write(RIGHT - 8, BOTTOM - 12, "below the band: more false alarms than promised", "end", "halo")
    yield from _legend(("ideal", "uniform"), ("band", "95 % envelope"), ("point", f"{data.normals} normals"))


def _legend(*entries: tuple[str, str]) -> Iterator[str]:
    x = LEFT
    for kind, words in entries:
        if kind == "point":
            yield mark("circle", kind, cx=x + 11, cy=16, r=4)
        elif kind == "band":
            yield mark("rect", kind, x=x, y=10, width=22, height=12)
        else:
            yield line(kind, x, 16, x + 22, 16)
        yield write(x + 29, 20, words)
        x += 45 + 7 * len(words)
