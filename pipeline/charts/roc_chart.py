"""Chart of ROC curves: the model with its interval band, the members of an ensemble, the controls, chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pipeline.charts.axes import Plot, Scale, draw_axes, percent
from pipeline.charts.svg import chart, line, path, write
from pipeline.config import Config

SIZE = (600.0, 372.0)
PLOT = Plot(Scale(0, 1, 58, 358), Scale(0, 1, 318, 18))
LEGEND_X, ROW, LONGEST = 382.0, 16.0, 26  # characters of a name
TICKS = tuple((share / 5, percent(share / 5)) for share in range(6))

Part = Literal["model", "member", "best control", "control"]


class RocCurve(Config):
    """One curve: its points from (0, 0) to (1, 1), and its area in words.

    Attributes:
        name: of the score.
        part: that it has in the chart.
        area: AUROC with its interval.
        fpr, tpr: false-positive rate and sensitivity of each point.
    """

    name: str
    part: Part
    area: str
    fpr: tuple[float, ...]
    tpr: tuple[float, ...]


class RocBand(Config):
    """Interval of the sensitivity at each false-positive rate."""

    fpr: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class RocData(Config):
    """Curves of one table, models first, then controls, best first."""

    title: str
    curves: tuple[RocCurve, ...]
    band: RocBand | None = None


def draw_roc(data: RocData, key: str) -> str:
    """Return the chart."""
    named = [one for one in data.curves if one.part != "control"]
    about = "; ".join(f"{_role(one)}: AUROC {one.area}" for one in named)
    rest = len(data.curves) - len(named)
    more = f"; {rest} other controls below the best one" if rest else ""
    return chart(key, f"ROC curves, {data.title}", f"{about}{more}.", SIZE, _parts(data))


def _parts(data: RocData) -> Iterator[str]:
    yield from draw_axes(PLOT, TICKS, TICKS, "False-positive rate (1 - specificity)", "Sensitivity")
    if data.band is not None:
        yield _band(data.band)
    yield line("ideal", *PLOT.at(0, 0), *PLOT.at(1, 1))
    for kind, curve in reversed(list(zip(_kinds(data.curves), data.curves, strict=True))):
        yield path(kind, (PLOT.at(x, y) for x, y in zip(curve.fpr, curve.tpr, strict=True)))
    yield from _legend(data)


def _band(band: RocBand) -> str:
    upper = [PLOT.at(x, y) for x, y in zip(band.fpr, band.high, strict=True)]
    lower = [PLOT.at(x, y) for x, y in zip(band.fpr, band.low, strict=True)]
    return path("band", [*upper, *reversed(lower)], closed=True)


def _kinds(curves: Sequence[RocCurve]) -> list[str]:
    """Return the kind of mark of each curve; members take turns with three."""
    kinds, members = [], 0
    for curve in curves:
        kinds.append(f"member-{members % 3 + 1}" if curve.part == "member" else curve.part.replace(" ", "-"))
        members += curve.part == "member"
    return kinds


def _legend(data: RocData) -> Iterator[str]:
    y = 24.0
    for kind, curve in zip(_kinds(data.curves), data.curves, strict=True):
        if curve.part == "control":
            continue
        part = ["the best control"] if curve.part == "best control" else []
        words = (_short(curve.name), *part, f"AUROC {curve.area}")
        yield from _entry(kind, y, *words)
        y += len(words) * ROW + 6
    others = sum(curve.part == "control" for curve in data.curves)
    if others:
        yield from _entry("control", y, f"{others} other controls")
        y += ROW + 6
    yield from _entry("ideal", y, "at random")
    if data.band is not None:
        yield write(LEGEND_X, y + ROW + 6, "Band: 95 % interval, by patient")


def _entry(kind: str, y: float, *words: str) -> Iterator[str]:
    yield line(kind, LEGEND_X, y - 4, LEGEND_X + 24, y - 4)
    for row, text in enumerate(words):
        yield write(LEGEND_X + 30, y + ROW * row, text, kind="label" if row else "strong")


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _role(curve: RocCurve) -> str:
    return f"control: {curve.name}" if curve.part == "best control" else curve.name
