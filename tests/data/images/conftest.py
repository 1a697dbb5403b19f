"""A pixel store in memory, series with known content, and planes with known content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.images.normalise import Plane
from pipeline.data.store.pixel_store import PixelStore
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.errors import CatalogueError
from pipeline.types import SliceRef


class CountingStore:
    """A real pixel store that counts its reads, and can lose an object."""

    def __init__(self, folder: Path) -> None:
        self._store = PixelStore(str(folder))
        self.reads = 0
        self.lost: set[str] = set()

    def put(self, stored: np.ndarray) -> str:
        return self._store.put(stored)

    def get(self, key: str, frame: int | None = None) -> np.ndarray:
        self.reads += 1
        if key in self.lost:
            raise CatalogueError(f"The pixel object {key[:12]} is damaged. Ingest its file again.")
        return self._store.get(key, frame)


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    """An empty store."""
    return CountingStore(tmp_path / "pixels")


MakeSeries = Callable[..., list[SliceRef]]


@pytest.fixture
def mr_series(store: CountingStore) -> MakeSeries:
    """`mr_series(name, gain, count)`: a head that grows and brightens from slice to slice, one instance per slice."""

    def make(name: str, gain: float = 1.0, count: int = 4, **fields: Any) -> list[SliceRef]:
        rng = np.random.default_rng(sum(map(ord, name)))
        rows, columns = np.mgrid[:48, :40] - np.array([24, 20])[:, None, None]
        refs = []
        for index in range(count):
            disc = rows**2 + columns**2 < (12 + index) ** 2
            pixels = gain * (np.where(disc, 300 + 40 * index + 3 * rows, 0) + rng.uniform(0, 8, rows.shape))
            key = store.put(pixels.astype(np.uint16)[None])
            attributes = InstanceAttributes(modality="MR", rows=48, columns=40, instance_number=index + 1)
            values = {"label": "normal", "set_name": "train", **fields}
            position = index / max(count - 1, 1)
            refs.append(
                SliceRef(
                    instance_id=f"i-{name}-{index}",
                    frame=0,
                    series_id=f"s-{name}",
                    study_id=f"t-{name}",
                    patient_id=f"p-{name}",
                    pixel_key=key,
                    attributes=attributes.to_json(),
                    relative_position=position,
                    **values,
                )
            )
        return refs

    return make


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
