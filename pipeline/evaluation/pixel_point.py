"""Pixel AP and oracle Dice of one map, without intervals: for grids that try hundreds of maps."""

from __future__ import annotations

import numpy as np

from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.pixel_metrics import PixelCase, new_pool, split_pixels
from pipeline.evaluation.ranking import Curve, average_precision, best_dice


class PixelPoint:
    """Collect the slices of one map in bounded memory; see `evaluate_pixels`.

    Args:
        config: `pixel_values` and `pixel_cells`.
        name: name of the map.
    """

    def __init__(self, config: EvaluationConfig, name: str) -> None:
        self._pool, self._name = new_pool(config), name

    def add(self, case: PixelCase) -> None:
        """Add a slice; an abnormal one without a mask is left out, since its normal pixels are unknown."""
        if case.label == "abnormal" and not np.any(case.mask):
            return
        normal, mask = split_pixels(case)
        seen = np.where(mask & ~np.asarray(case.body, bool), -np.inf, case.maps[self._name]).astype(np.float32)
        self._pool.add(case.patient_id, seen[normal], seen[mask], np.zeros(int(mask.sum())))

    def result(self) -> tuple[float, float]:
        """Return (pixel AP, best Dice, an oracle); NaN if lesion or normal pixels are missing."""
        if not self._pool.negatives:
            return float("nan"), float("nan")
        _, weights = self._pool.totals()
        curve = Curve.from_counts(weights[None, ::-1, 1], weights[None, ::-1, 0])
        return float(average_precision(curve)[0]), float(best_dice(curve)[0])
