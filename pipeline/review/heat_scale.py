"""Colours of heatmaps as the browser gets them: levels on the scale of `pipeline.detection.rarity_scale`."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.detection.pixel_threshold import PixelQuantiles
from pipeline.detection.rarity_scale import SHARES, rarity_line
from pipeline.review.slice_maps import SliceMaps

STEPS = 255  # of the colours; once nothing is hidden any more, `FINE_STEPS` let the outline be exact
FINE_STEPS = 65_535


def colour_levels(maps: SliceMaps, quantiles: PixelQuantiles | None, steps: int = STEPS) -> np.ndarray:
    """Return the colours of a heatmap [H, W], 0 for nothing to see to `steps`; values beyond the scale are clipped.

    Without quantiles (the model's pixels are not calibrated), the scale is the image's own, from a quarter of its top.
    """
    table = np.arange(2**16) * maps.heat_step + maps.heat_first
    if quantiles is None:
        shares = (table - maps.top / 4) / max(maps.top * 3 / 4, 1e-12)
    else:
        shares = np.interp(table, *rarity_line(quantiles))
    levels = np.rint(np.clip(shares, 0.0, 1.0) * steps)
    return levels.astype(np.uint8 if steps == STEPS else np.uint16)[maps.heat]


def describe_scale(quantiles: PixelQuantiles | None) -> dict[str, Any]:
    """Return the legend: shares of normal pixels at even places of the bar; none without quantiles."""
    return {"common": quantiles is not None, "ticks": [] if quantiles is None else list(SHARES)}
