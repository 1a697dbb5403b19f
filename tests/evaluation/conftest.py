"""Score tables and pixel cases with known truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.pixel_metrics import PixelCase

MakeScores = Callable[..., pd.DataFrame]
MakeCases = Callable[..., Iterator[PixelCase]]


@pytest.fixture
def quick() -> EvaluationConfig:
    """Few resamples: enough to see an interval."""
    return EvaluationConfig(resamples=300, seed=1)


@pytest.fixture
def make_scores() -> MakeScores:
    """Return a factory of score tables: binormal scores, separation `shift`, patient effect `spread`."""

    def make(
        patients: int = 30, units: int = 4, shift: float = 1.0, spread: float = 0.5, seed: int = 0, **columns: object
    ) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        number = patients * units
        patient = np.repeat(np.arange(patients), units)
        abnormal = rng.random(number) < 0.4
        scores = rng.normal(size=number) + shift * abnormal + spread * rng.normal(size=patients)[patient]
        frame = {
            "unit_id": [f"u{i:05d}" for i in range(number)],
            "patient_id": [f"p{i:04d}" for i in patient],
            "label": np.where(abnormal, "abnormal", "normal"),
            "score": scores,
        }
        return pd.DataFrame({**frame, **columns})

    return make


@pytest.fixture
def make_cases() -> MakeCases:
    """Return a factory of pixel cases: noise with square lesions, brighter by `shift`, in every other slice."""

    def make(
        patients: int = 6, slices: int = 4, side: int = 32, shift: float = 1.5, seed: int = 0
    ) -> Iterator[PixelCase]:
        rng = np.random.default_rng(seed)
        for patient in range(patients):
            level = 0.3 * rng.normal()
            for index in range(slices):
                mask = np.zeros((side, side), bool)
                if index % 2:
                    row, column = rng.integers(2, side - 10, 2)
                    mask[row : row + 6, column : column + 7] = True
                values = (rng.normal(size=mask.shape) + level + shift * mask).astype(np.float32)
                label = "abnormal" if mask.any() else "normal"
                maps = {"model": values, "control:raw_brightness": -values}
                body = np.ones_like(mask)
                yield PixelCase(f"p{patient:03d}", f"s{patient}-{index}", label, maps, body, mask)

    return make
