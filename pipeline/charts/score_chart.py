"""Chart of the scores of normal and abnormal units, each as a share of its class, with the thresholds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.charts.axes import Plot, Scale, draw_axes, percent, round_ticks
from pipeline.charts.svg import chart, line, mark, path, write
from pipeline.config import Config

SIZE = (600.0, 372.0)
LEFT, RIGHT, TOP, BOTTOM = 58.0, 586.0, 36.0, 326.0


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
    yield from draw_axes(plot, x_ticks, y_ticks, f"Score{beyond}", "Share of its class")
    for kind, shares in (("normal", data.normal), ("abnormal", data.abnormal)):
        yield path(kind, _outline(plot, data.edges, shares), closed=True)
    for place, one in enumerate(sorted(data.thresholds, key=lambda one: -one.value)):
        yield from _threshold(plot, one, place)
    for kind, x, words in (
        ("normal", LEFT, f"normal, {data.normals}"),
        ("abnormal", LEFT + 150, f"abnormal, {data.abnormals}"),
    ):
        yield mark("rect", kind, x=x, y=10, width=22, height=11)
        yield write(x + 29, 20, words)


def _outline(plot: Plot, edges: Sequence[float], shares: Sequence[float]) -> Iterator[tuple[float, float]]:
    yield plot.at(edges[0], 0)
    for left, right, share in zip(edges[:-1], edges[1:], shares, strict=True):
        yield plot.at(left, share)
        yield plot.at(right, share)
    yield plot.at(edges[-1], 0)


def _threshold(plot: Plot, one: ScoreThreshold, place: int) -> Iterator[str]:
    """Yield a threshold's line and, beside it, the rate that it is for; labels lie below each other."""
    x, y = plot.x.at(one.value), TOP + 12 + 15 * place
    yield line("threshold", x, BOTTOM, x, TOP)
    left = x > (LEFT + RIGHT) / 2
    words = f"{percent(one.fpr)} false positives"
    yield write(x - 5 if left else x + 5, y, words, "end" if left else "start", "halo")
