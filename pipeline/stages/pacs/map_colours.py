"""Colours of an anomaly map: how rare a value is among the pixels of normal scans, the same for every picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.detection.pixel_threshold import PixelQuantiles
from pipeline.detection.rarity_scale import SHARES, rarity_line

NAMES = tuple(f"{100 * share:g} %" for share in SHARES)
COLOUR_MAP = "inferno"


@dataclass(frozen=True, slots=True)
class MapColours:
    """Scale and legend of a map.

    Attributes:
        values: ascending heatmap values.
        places: of the values on the colour bar, 0 to 1; outside beyond its ends.
        names: words at equal distances on the colour bar.
        legend: one line under the colour bar.
        outline: what is outlined.
    """

    values: tuple[float, ...]
    places: tuple[float, ...]
    names: tuple[str, ...]
    legend: str
    outline: str = ""

    @classmethod
    def of_normals(cls, pixels: PixelQuantiles, alpha: float | None) -> MapColours:
        """Return the scale of a calibrated detector: equal steps from 10 % to 0.01 % of normal pixels above."""
        outline = "" if alpha is None else f"outline: {100 * alpha:g} % of normal pixels are above"
        legend = "share of normal pixels that are higher"
        values, places = rarity_line(pixels)
        return cls(tuple(values), tuple(places), NAMES, legend, outline)

    @classmethod
    def of_study(cls, heatmaps: Sequence[np.ndarray]) -> MapColours:
        """Return a scale from the median to the 99.7th percentile of the maps themselves, and say so."""
        inside = np.concatenate([heatmap[heatmap != 0] for heatmap in heatmaps])
        low, high = np.quantile(inside, [0.5, 0.997]) if inside.size else (0.0, 1.0)
        legend = "scale of this study only: not calibrated"
        return cls((float(low), float(high)), (0.0, 1.0), ("usual", "unusual"), legend)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """(Place on the colour bar, 0 to 1; its name)."""
        return [(number / (len(self.names) - 1), name) for number, name in enumerate(self.names)]

    def strength(self, values: np.ndarray) -> np.ndarray:
        """Return the place of each value on the colour bar, 0 to 1; values beyond an end are at that end."""
        return np.clip(np.interp(values, self.values, self.places), 0.0, 1.0)

    def colour(self, strength: np.ndarray) -> np.ndarray:
        """Return red, green and blue, 0 to 255 [..., 3], of places on the colour bar."""
        from matplotlib import colormaps

        return 255 * np.asarray(colormaps[COLOUR_MAP](strength))[..., :3]
