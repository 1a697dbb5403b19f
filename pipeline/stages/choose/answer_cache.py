"""A model's outputs for a set, computed once and stored on disk for repeated reading by the score grid."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline import durable
from pipeline.data.images.dataset import SliceDataset, Stack, iterate_batches
from pipeline.detection.detector import Detector
from pipeline.detection.slices import content_id, read_series_stacks
from pipeline.detection.volumes import in_parts
from pipeline.errors import ConfigError
from pipeline.stages.run.score_slices import OnProgress
from pipeline.types import Batch, SliceRef


@dataclass(frozen=True, slots=True)
class KeptAnswers:
    """The model outputs of one data set, in its order.

    Attributes:
        data: source of images and bodies.
        answers: float32 [N, C, *spatial], a memory map, read on demand. For a data set of whole
            series, every slice of each has an output, chosen or not.
        batch_size: slices read at once, unless whole series are read.
    """

    data: SliceDataset
    answers: np.ndarray
    batch_size: int

    @property
    def refs(self) -> tuple[SliceRef, ...]:
        """The slices."""
        return self.data.slices

    def __iter__(self) -> Iterator[tuple[Stack, torch.Tensor]]:
        """Yield batches, or whole series one at a time, with the outputs of all their rows [B, C, *spatial]."""
        start = 0
        for stack in self._stacks():
            end = start + len(stack.batch.ids)
            yield stack, torch.from_numpy(np.array(self.answers[start:end]))
            start = end

    def _stacks(self) -> Iterator[Stack]:
        if self.data.whole:
            yield from self.data.stacks()
            return
        for batch in iterate_batches(self.data, self.batch_size):
            yield Stack(batch, dict(enumerate(batch.ids)))


def keep_answers(
    detector: Detector, data: SliceDataset, folder: Path, on_progress: OnProgress | None = None
) -> KeptAnswers:
    """Return the model's outputs, computed unless `folder` has them for these slices and weights.

    There is one forward pass per slice, with the randomness of scoring; float32, so that a grid cell is exactly what
    a detector with that setting scores. An interrupted pass leaves nothing that looks complete.

    Args:
        detector: a reconstructor or mapper.
        data: a cached data set, so that unusable series are known in advance; for whole series, all slices are
            computed.
        folder: folder of this set; replaced if slices or model change.
        on_progress: called with (slices done, total slices).

    Raises:
        ConfigError: the detector's model was never saved, so it has no SHA-256.
    """
    file, key = folder / "answers.npy", _cache_key(detector, data)
    if _read(folder / "index.json") != key:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _compute(detector, data, file, on_progress)
        durable.write(folder / "index.json", json.dumps(key))  # last, as it marks the outputs as complete
    return KeptAnswers(data, _opened(file, key["count"]), detector.config.batch_size)


def _compute(detector: Detector, data: SliceDataset, file: Path, on_progress: OnProgress | None) -> None:
    outputs: np.memmap | None = None
    start, count = 0, len(_held(data))
    for answer in _answers(detector, data):
        if outputs is None:
            outputs = np.lib.format.open_memmap(file, "w+", np.float32, (count, *answer.shape[1:]))
        outputs[start : start + len(answer)] = answer
        start += len(answer)
        if on_progress is not None:
            on_progress(start, count)
    if outputs is not None:
        outputs.flush()


def _answers(detector: Detector, data: SliceDataset) -> Iterator[np.ndarray]:
    """Yield the outputs in the order of the data: float32 [n, C, S, S], for slices or a volume's slices."""
    if data.whole:
        for stack in read_series_stacks(data):
            for part in _parts(detector, stack.batch):
                yield detector.answer(part).cpu().numpy()
        return
    for batch in iterate_batches(data, detector.config.batch_size):
        seeds = tuple(content_id(data, item) for item in batch.ids)
        yield detector.answer(replace(batch, ids=seeds)).cpu().numpy()


def _parts(detector: Detector, series: Batch) -> list[Batch]:
    """Return a series in parts for the model: a volume in one piece, slices in batches."""
    if detector.volumes is not None:
        return [series]
    return [series.part(rows) for rows in in_parts(detector.config.batch_size, len(series.ids))]


def _held(data: SliceDataset) -> list[SliceRef]:
    """Return the slices that have outputs, in order: those of the data, or all slices of whole series."""
    if not data.whole:
        return list(data.slices)
    return [ref for series in data.series for ref in series.plan.members]


def _opened(file: Path, count: int) -> np.ndarray:
    return np.load(file, mmap_mode="r") if count else np.zeros((0, 1, 1, 1), np.float32)


def _cache_key(detector: Detector, data: SliceDataset) -> dict[str, Any]:
    """Return the inputs of the outputs: model, precision, seed, tiles of volumes, slices in order."""
    origin, held = detector.model.origin, _held(data)
    if origin is None:
        raise ConfigError(
            "The model's outputs are stored under its SHA-256. Save the model first with save_model(folder, model)"
        )
    return {
        "model": origin.sha256,
        "seed": detector.seed,
        "precision": detector.config.precision,
        "tiles": None if detector.volumes is None else detector.config.tiles.model_dump(mode="json"),
        "slices": hashlib.sha256("\n".join(ref.content_id for ref in held).encode()).hexdigest(),
        "count": len(held),
    }


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None
