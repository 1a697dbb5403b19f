"""Slices in and out of a detector: batches of a data set, results one by one, maps on the native grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from pipeline.data.images.dataset import SliceDataset, Stack, batches, collate
from pipeline.data.images.normalise import Normaliser
from pipeline.errors import ConfigError
from pipeline.types import AnomalyMap, Batch, Step


class Scored(NamedTuple):
    """Result of `Detector.score_batch`.

    Attributes:
        scores: float64 [B], raw, higher = more anomalous; NaN exactly where no body is left to score.
        maps: float32 [B, 1, *spatial], 0 outside the (eroded) body; None for a ScanScorer.
        reconstructions: float32 [B, C, *spatial] in [-1, 1]; None if the method has no reconstruction.
    """

    scores: Tensor
    maps: Tensor | None
    reconstructions: Tensor | None


@dataclass(frozen=True, slots=True)
class SliceResult:
    """One slice on the model grid; `values`, `body` and `reconstruction` are [*spatial], the last in [-1, 1]."""

    id: str
    score: float
    values: np.ndarray | None
    body: np.ndarray
    reconstruction: np.ndarray | None

    def alone(self, slice_id: str) -> SliceResult:
        """Return the result under its id with copied arrays, so that keeping a slice does not keep the whole volume."""
        arrays: list[Any] = [
            None if item is None else item.copy() for item in (self.values, self.body, self.reconstruction)
        ]
        return SliceResult(slice_id, self.score, *arrays)


class Slices(Protocol):
    """A data set of normalised slices; `pipeline.data.images.dataset.SliceDataset` is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return {"image": float32 [C, *spatial], "body": bool [1, *spatial], "id": str}."""


def slice_batches(data: Slices, batch_size: int) -> Iterator[Batch]:
    """Yield the slices in order; for a `SliceDataset`, unusable series are recorded and skipped."""
    if isinstance(data, SliceDataset):
        yield from batches(data, batch_size)
        return
    for start in range(0, len(data), batch_size):
        yield collate([data[index] for index in range(start, min(start + batch_size, len(data)))])


def series_stacks(data: Slices) -> Iterator[Stack]:
    """Yield the series of a data set as read by a detector of volumes.

    Raises:
        ConfigError: the data set does not hold whole series.
    """
    if not isinstance(data, SliceDataset) or not data.whole:
        raise ConfigError("Volumes are scored from whole series. Give a SliceDataset created with whole=True.")
    yield from data.stacks()


def content_id(data: Slices, slice_id: str) -> str:
    """Return the seed of a slice's randomness: its pixels' content address and frame, or its id if unknown."""
    if not isinstance(data, SliceDataset):
        return slice_id
    return data.ref(slice_id).content_id


def slice_results(batch: Batch, scored: Scored) -> Iterator[SliceResult]:
    """Split a scored batch into its slices (first channel of the reconstructions)."""
    scores = scored.scores.cpu().tolist()
    maps = None if scored.maps is None else scored.maps.cpu().numpy()
    images = None if scored.reconstructions is None else scored.reconstructions.cpu().numpy()
    bodies = batch.body.cpu().numpy()
    for row, (item, score) in enumerate(zip(batch.ids, scores, strict=True)):
        values = None if maps is None else maps[row, 0]
        yield SliceResult(item, score, values, bodies[row, 0], None if images is None else images[row, 0])


def native_map(
    normaliser: Normaliser, result: SliceResult, step: Step, reconstruction: bool = True
) -> AnomalyMap | None:
    """Bring a slice's map and body to the native grid, and optionally its reconstruction, which costs most.

    Return None if the method has no map.
    """
    if result.values is None:
        return None
    body = normaliser.mask_to_native(result.body, step)
    values = normaliser.to_native(result.values, step)
    np.multiply(values, body, out=values)
    image = result.reconstruction if reconstruction else None
    return AnomalyMap(values, body, None if image is None else normaliser.invert(image, step))
