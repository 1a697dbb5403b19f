"""Axes of a chart: scales from values to pixels, round ticks, grid and labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.charts.svg import line, write
from pipeline.charts.text_size import width_of

Ticks = Sequence[tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Scale:
    """Map of values `low` to `high` onto pixels `start` to `end`, logarithmic where `log`; others are clipped."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high, value = (math.log(one) if self.log else one for one in (self.low, self.high, max(value, self.low)))
        share = (min(value, high) - low) / (high - low) if high > low else 0.0
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Plot:
    """Area of a chart within its axes: x from left to right, y from bottom to top."""

    x: Scale
    y: Scale

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the pixel of a point."""
        return self.x.at(x), self.y.at(y)


def round_ticks(low: float, high: float, about: int = 5, whole: bool = False) -> list[float]:
    """Return about so many multiples of 1, 2 or 5 times a power of ten between two values; whole numbers if `whole`."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((factor * power for factor in (1, 2, 5) if factor * power >= rough * 0.999), 10 * power)
    step = max(step, 1.0) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 12) for place in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return the powers of ten from `low` to `high`, with their 2nd and 5th multiples where the powers are few."""
    first, last = math.floor(math.log10(low)), math.floor(math.log10(high) + 1e-9)
    factors = (1, 2, 5) if last - first < 4 else (1,)
    ticks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    return [tick for tick in ticks if low <= tick * (1 + 1e-9) and tick <= high * (1 + 1e-9)]


def percent(share: float) -> str:
    """Return a share in per cent, without needless digits."""
    return f"{100 * share:.4g} %"


def draw_axes(
    plot: Plot, x_ticks: Ticks, y_ticks: Ticks, x_title: str, y_title: str, width: float = math.inf
) -> Iterator[str]:
    """Yield grid lines, tick labels, axis lines and the titles of both axes; labels end left of `width`."""
    x, y = plot.x, plot.y
    for value, words in y_ticks:
        yield line("grid", x.start, y.at(value), x.end, y.at(value))
        yield write(x.start - 7, y.at(value) + 4, words, "end")
    for value, words in x_ticks:
        yield line("axis", x.at(value), y.start, x.at(value), y.start + 4)
        yield write(min(x.at(value), width - width_of(words) / 2), y.start + 17, words, "middle")
    yield line("axis", x.start, y.start, x.end, y.start)
    if x_title:
        yield write((x.start + x.end) / 2, y.start + 36, x_title, "middle")
    yield write(14, (y.start + y.end) / 2, y_title, "middle", turned=True)
