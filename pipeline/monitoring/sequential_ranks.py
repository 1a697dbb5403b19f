"""p-values of scans in the order of their arrival, each ranked among the scans that came before it.

If the scans of a stream are exchangeable, these p-values are independent and uniform on (0, 1), whatever the scores'
distribution (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2022, proposition 2.4). That is false
of p-values against a *fixed* set of calibration scores: they all lean the way in which that set happens to lean, and
a test over many nights mistakes the leaning for drift.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable

import numpy as np


class SequentialRanks:
    """Ranks one value after the other among all before it.

    Args:
        first: values that precede the stream and are exchangeable with it, such as calibration scores; often none.
    """

    def __init__(self, first: Iterable[float] = ()) -> None:
        self._sorted = sorted(float(value) for value in first)

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, value: float, tie: float) -> float:
        """Return the p-value in (0, 1) of a value, small for a large one; the value then belongs to those before.

        Args:
            value: finite.
            tie: uniform in (0, 1) and independent of the value; it breaks ties, the value's with itself included.
        """
        above = len(self._sorted) - bisect_right(self._sorted, value)
        equal = len(self._sorted) - bisect_left(self._sorted, value) - above
        p_value = (above + tie * (equal + 1)) / (len(self._sorted) + 1)
        insort(self._sorted, value)
        return p_value


def rank_stream(values: np.ndarray, ties: np.ndarray, first: Iterable[float] = ()) -> np.ndarray:
    """Return the p-values of a stream, float64 [N], from its values and uniform numbers; see `SequentialRanks.add`."""
    ranks = SequentialRanks(first)
    return np.array([ranks.add(value, tie) for value, tie in zip(values.tolist(), ties.tolist(), strict=True)])
