"""Planes with known content."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.data.normalise import Plane

MakeHead = Callable[..., Plane]


@pytest.fixture
def head() -> MakeHead:
    """A disc of tissue on air: `head(seed, gain)`; deterministic."""

    def make(seed: int = 0, gain: float = 1.0, size: int = 96, radius: float = 36.0) -> Plane:
        rng = np.random.default_rng(seed)
        rows, columns = np.mgrid[:size, :size] - size / 2
        disc = rows**2 + columns**2 < radius**2
        tissue = 300 + 2 * rows + 40 * np.sin(columns / 5)
        pixels = np.where(disc, tissue, 0) + np.abs(rng.normal(0, 4, (size, size)))
        return Plane((gain * pixels).astype(np.float32))

    return make


@pytest.fixture
def disc() -> Callable[..., np.ndarray]:
    """A boolean disc: `disc(size, row, column, radius)`."""

    def make(size: int, row: float, column: float, radius: float) -> np.ndarray:
        rows, columns = np.mgrid[:size, :size]
        return (rows - row) ** 2 + (columns - column) ** 2 < radius**2

    return make
