"""Stacks whose slice distance changes on purpose, as sequential head CT is planned: 4 mm below, 7 mm above.

Such a stack is not a volume, and no slice of it is missing: its slices may be read one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

MOST_BLOCKS = 4  # base of the skull, brain, and two more at most, ever thicker; anything else is irregular
LEAST_GAPS = 2  # equal distances that make a block: a single larger one is a missing slice
SAME_GAP = 0.02  # of a distance: what tables and rounded positions vary


def is_sequential(heights: np.ndarray, thicknesses: Sequence[float | None]) -> bool:
    """Return whether slices at these heights, in order, are blocks of even distances, or touch each other throughout.

    Between two blocks one distance may lie anywhere between theirs: centres of slices of 4 and 7 mm that touch are
    5.5 mm apart.
    """
    gaps = np.diff(heights)
    return _touching(gaps, thicknesses) or _blocks(gaps)


def _touching(gaps: np.ndarray, thicknesses: Sequence[float | None]) -> bool:
    """Whether each distance is the mean thickness of its two slices, and the thickness varies."""
    given = [value for value in thicknesses if value is not None and value > 0]
    if len(given) < len(thicknesses) or len(set(given)) < 2:
        return False
    expected = np.array([(one + other) / 2 for one, other in pairwise(given)])
    return bool(np.all(np.abs(gaps - expected) <= SAME_GAP * expected + 0.05))


def _blocks(gaps: np.ndarray) -> bool:
    runs = _runs(gaps)
    blocks = [run for run in runs if len(run) >= LEAST_GAPS]
    if not 2 <= len(blocks) <= MOST_BLOCKS or len(runs[0]) < LEAST_GAPS or len(runs[-1]) < LEAST_GAPS:
        return False
    sizes = [run[0] for run in blocks]
    if sizes not in (sorted(sizes), sorted(sizes, reverse=True)):
        return False
    for before, single, after in zip(runs, runs[1:], runs[2:], strict=False):
        if len(single) < LEAST_GAPS:
            low, high = sorted((before[0], after[0]))
            if min(len(before), len(after)) < LEAST_GAPS or not low <= single[0] <= high or _same(low, high):
                return False
    return True


def _runs(gaps: np.ndarray) -> list[list[float]]:
    runs: list[list[float]] = [[]]
    for gap in gaps:
        if runs[-1] and not _same(float(gap), runs[-1][0]):
            runs.append([])
        runs[-1].append(float(gap))
    return runs


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= SAME_GAP * max(one, other) + 0.05  # positions may be rounded to 0.1 mm
