"""Slices in and out of a detector: batches of a data set, results one by one, maps on the native grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from pipeline.data.images.dataset import SliceDataset, Stack, collate, iterate_batches
from pipeline.data.images.normalise import Normaliser
from pipeline.errors import ConfigError
from pipeline.types import Batch, SliceResult, Step


class BatchResult(NamedTuple):
    """Result of `Detector.score_batch`.

    Attributes:
        scores: float64 [B], raw, higher = more anomalous; NaN exactly where no body is left to score.
        maps: float32 [B, 1, *spatial], 0 outside the (eroded) body; None for a ScanScorer.
        reconstructions: float32 [B, C, *spatial] in [-1, 1], outside the body the image itself; None if the method has
            no reconstruction.
        members: float64 [M, B], the z-scores of an ensemble's members; None for a single detector.
    """

    scores: Tensor
    maps: Tensor | None
    reconstructions: Tensor | None
    members: Tensor | None = None


class Slices(Protocol):
    """A data set of normalised slices; `pipeline.data.images.dataset.SliceDataset` is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return {"image": float32 [C, *spatial], "body": bool [1, *spatial], "id": str}."""


def slice_batches(data: Slices, batch_size: int) -> Iterator[Batch]:
    """Yield the slices in order; for a `SliceDataset`, unusable series are recorded and skipped."""
    if isinstance(data, SliceDataset):
        yield from iterate_batches(data, batch_size)
        return
    for start in range(0, len(data), batch_size):
        yield collate([data[index] for index in range(start, min(start + batch_size, len(data)))])


def read_series_stacks(data: Slices) -> Iterator[Stack]:
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


def slice_results(batch: Batch, scored: BatchResult) -> Iterator[SliceResult]:
    """Split a scored batch into its slices (first channel of the reconstructions)."""
    scores = scored.scores.cpu().tolist()
    maps = None if scored.maps is None else scored.maps.cpu().numpy()
    images = None if scored.reconstructions is None else scored.reconstructions.cpu().numpy()
    members = [()] * len(scores) if scored.members is None else scored.members.T.cpu().tolist()
    bodies = batch.body.cpu().numpy()
    for row, (item, score) in enumerate(zip(batch.ids, scores, strict=True)):
        values = None if maps is None else maps[row, 0]
        image = None if images is None else images[row, 0]
        yield SliceResult(item, score, values, bodies[row, 0], image, members=tuple(members[row]))


def native_map(
    normaliser: Normaliser, values: np.ndarray, body: np.ndarray, step: Step
) -> tuple[np.ndarray, np.ndarray]:
    """Return a map and its body [S, S] on the native grid [H, W]; the map is 0 outside the body."""
    inside = normaliser.mask_to_native(body, step)
    native = normaliser.to_native(values, step)
    np.multiply(native, inside, out=native)
    return native, inside


def native_result(normaliser: Normaliser, result: SliceResult, step: Step, reconstruction: bool = True) -> SliceResult:
    """Bring a slice's map and body to the native grid, and optionally its reconstruction, which costs most."""
    if result.values is None:
        return replace(result, body=normaliser.mask_to_native(result.body, step), reconstruction=None)
    values, body = native_map(normaliser, result.values, result.body, step)
    image = result.reconstruction if reconstruction else None
    image = None if image is None else normaliser.invert(image, step)
    return replace(result, values=values, body=body, reconstruction=image)
