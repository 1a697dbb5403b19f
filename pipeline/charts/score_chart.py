"""Chart of the scores of normal and abnormal units, each as a share of its class, with the thresholds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.charts.axes import Plot, Scale, draw_axes, percent, round_ticks
from pipeline.charts.svg import chart, line, mark, path, write
from pipeline.charts.text_size import break_lines
from pipeline.config import Config

SIZE = (600.0, 372.0)
LEFT, RIGHT, TOP, BOTTOM, LINE = 58.0, 586.0, 36.0, 326.0, 15.0
MOST_LABELS = 12
SAME = 1.5  # pixels between two thresholds whose lines look like one


class ScoreThreshold(Config):
    """A threshold and the false-positive rate that it is for."""

    value: float
    fpr: float


class ScoreData(Config):
    """Histogram of scores.

    Attributes:
        edges: of the bins, one more than bins.
        normal, abnormal: share of its class in each bin.
        normals, abnormals: number of units of each class.
        beyond: number of units above the last edge, which the last bin includes.
        thresholds: units above a threshold are flagged.
    """

    edges: tuple[float, ...]
    normal: tuple[float, ...]
    abnormal: tuple[float, ...]
    normals: int
    abnormals: int
    beyond: int = 0
    thresholds: tuple[ScoreThreshold, ...] = ()


def draw_scores(data: ScoreData, key: str) -> str:
    """Return the chart."""
    thresholds = ", ".join(f"{one.value:.4g} for {percent(one.fpr)} false positives" for one in data.thresholds)
    about = (
        f"{data.normals} normal units between {_span(data, data.normal)}, {data.abnormals} abnormal units between "
        f"{_span(data, data.abnormal)}. Thresholds: {thresholds or 'none'}."
    )
    return chart(key, "Scores of normal and abnormal units", about, SIZE, _parts(data))


def place_scores(data: ScoreData) -> Plot:
    """Return the area of the chart: x as wide as the bins, y as high as the highest bin."""
    highest = max((*data.normal, *data.abnormal, 0.01))
    return Plot(Scale(data.edges[0], data.edges[-1], LEFT, RIGHT), Scale(0, highest * 1.06, BOTTOM, TOP))


def _span(data: ScoreData, shares: Sequence[float]) -> str:
    filled = [place for place, share in enumerate(shares) if share > 0]
    return f"{data.edges[filled[0]]:.4g} and {data.edges[filled[-1] + 1]:.4g}" if filled else "no values"


def _parts(data: ScoreData) -> Iterator[str]:
    plot = place_scores(data)
    x_ticks = [(value, f"{value:g}") for value in round_ticks(plot.x.low, plot.x.high, 6)]
    y_ticks = [(value, percent(value)) for value in round_ticks(0, plot.y.high, 4)]
    beyond = f" (the last bin includes {data.beyond} above it)" if data.beyond else ""
    yield from draw_axes(plot, x_ticks, y_ticks, f"Score{beyond}", "Share of its class", SIZE[0])
    for kind, shares in (("normal", data.normal), ("abnormal", data.abnormal)):
        yield path(kind, _outline(plot, data.edges, shares), closed=True)
    lines = _distinct(plot, data.thresholds)
    for x in lines:
        yield line("threshold", x, BOTTOM, x, TOP)
    for place, (x, rates) in enumerate(list(lines.items())[:MOST_LABELS]):
        yield from _label(x, place, rates)
    if len(lines) > MOST_LABELS:
        more = f"and {len(lines) - MOST_LABELS} more thresholds"
        yield write(RIGHT - 5, TOP + 12 + LINE * MOST_LABELS, more, "end", "halo")
    for kind, x, words in (
        ("normal", LEFT, f"normal, {data.normals}"),
        ("abnormal", LEFT + 180, f"abnormal, {data.abnormals}"),
    ):
        yield mark("rect", kind, x=x, y=10, width=22, height=11)
        yield write(x + 29, 20, words)


def _outline(plot: Plot, edges: Sequence[float], shares: Sequence[float]) -> Iterator[tuple[float, float]]:
    yield plot.at(edges[0], 0)
    for left, right, share in zip(edges[:-1], edges[1:], shares, strict=True):
        yield plot.at(left, share)
        yield plot.at(right, share)
    yield plot.at(edges[-1], 0)


def _distinct(plot: Plot, thresholds: Sequence[ScoreThreshold]) -> dict[float, list[float]]:
    """Return the rates by the pixel of their threshold, the rightmost first: lines on one another share a label."""
    lines: dict[float, list[float]] = {}
    for one in sorted(thresholds, key=lambda one: (-one.value, one.fpr)):
        x = plot.x.at(one.value)
        near = next((other for other in lines if abs(other - x) < SAME), x)
        lines.setdefault(near, []).append(one.fpr)
    return lines


def _label(x: float, place: int, rates: Sequence[float]) -> Iterator[str]:
    """Yield the rates that a threshold is for beside its line; labels lie below each other, and above all lines."""
    left = x > (LEFT + RIGHT) / 2
    room = (x - LEFT if left else RIGHT - x) - 8
    (words,) = break_lines(f"{', '.join(map(percent, rates))} false positives", room, size=11, most=1)
    yield write(x - 5 if left else x + 5, TOP + 12 + LINE * place, words, "end" if left else "start", "halo")
