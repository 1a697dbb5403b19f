"""The scale of anomaly maps: how rare a value is among the in-body pixels of the calibration normals.

A residual has no unit that means anything to a reader, and a scale of each image's own would let a normal one glow as
much as a lesion. So a colour says which share of normal pixels is higher, on a logarithmic scale: it begins where 10 %
of them are and ends where 1 in 10 000 is. The reading list and the pictures for the PACS use the same.
"""

from __future__ import annotations

import math

from pipeline.detection.pixel_threshold import PixelQuantiles

SHARES = (0.1, 0.01, 0.001, 0.0001)  # of normal in-body pixels that are higher, at equal distances on the scale
COMMONEST, RAREST = SHARES[0], SHARES[-1]


def position(share: float) -> float:
    """Return the place of a share of normal pixels on the scale: 0 at `COMMONEST`, 1 at `RAREST`, outside beyond."""
    return math.log(COMMONEST / share) / math.log(COMMONEST / RAREST)


def rarity_line(quantiles: PixelQuantiles) -> tuple[list[float], list[float]]:
    """Return map values and their positions, both ascending, for linear interpolation between them."""
    pairs = sorted(zip(quantiles.values, map(position, quantiles.alphas), strict=True))
    return [value for value, _ in pairs], [place for _, place in pairs]
