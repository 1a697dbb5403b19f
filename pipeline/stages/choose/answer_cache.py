"""A model's answers for a set, computed once and kept on disk: what the score grid reads again and again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from pipeline import durable
from pipeline.data.images.dataset import SliceDataset, batches
from pipeline.detection.detector import Detector
from pipeline.detection.slices import content_id, series_stacks
from pipeline.detection.volumes import in_parts
from pipeline.errors import ConfigError
from pipeline.stages.run.score_slices import OnProgress
from pipeline.types import Batch, SliceRef


class Answered(NamedTuple):
    """Slices with the model's answers [B, C, *spatial]; `wanted` are the ids of those that are judged, by row."""

    batch: Batch
    answers: torch.Tensor
    wanted: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class KeptAnswers:
    """The answers of one data set, in its order.

    Attributes:
        data: where images and bodies come from.
        answers: float32 [N, C, *spatial], a memory map: what is not looked at is not in memory. Of a data set of whole
            series, every slice of each has an answer, chosen or not.
        batch_size: slices read at once, where series are not.
    """

    data: SliceDataset
    answers: np.ndarray
    batch_size: int

    @property
    def refs(self) -> tuple[SliceRef, ...]:
        """The slices."""
        return self.data.slices

    def __iter__(self) -> Iterator[Answered]:
        """Yield batches, or whole series one at a time, with their answers."""
        start = 0
        for batch, wanted in self._batches():
            end = start + len(batch.ids)
            yield Answered(batch, torch.from_numpy(np.array(self.answers[start:end])), wanted)
            start = end

    def _batches(self) -> Iterator[tuple[Batch, Mapping[int, str]]]:
        if self.data.whole:
            yield from self.data.stacks()
            return
        for batch in batches(self.data, self.batch_size):
            yield batch, dict(enumerate(batch.ids))


def keep_answers(
    detector: Detector, data: SliceDataset, folder: Path, on_progress: OnProgress | None = None
) -> KeptAnswers:
    """Return the model's answers, computed unless they are in `folder` for these slices and weights.

    One forward pass a slice, with the randomness that scoring gives it; float32, so that a grid's cell is exactly what
    a detector of that setting scores. A pass that was stopped leaves nothing that would be taken for whole.

    Args:
        detector: a reconstructor or mapper.
        data: cached, so that series that cannot be used are known before; of whole series, all slices are answered.
        folder: of this set; replaced when slices or model are others.
        on_progress: called with (slices done, slices in all).

    Raises:
        ConfigError: the detector's model was never saved, and so has no SHA-256.
    """
    file, question = folder / "answers.npy", _question(detector, data)
    if _read(folder / "index.json") != question:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _compute(detector, data, file, on_progress)
        durable.write(folder / "index.json", json.dumps(question))  # last: it says that the answers are whole
    return KeptAnswers(data, _opened(file, question["count"]), detector.config.batch_size)


def _compute(detector: Detector, data: SliceDataset, file: Path, on_progress: OnProgress | None) -> None:
    kept: np.ndarray | None = None
    start, count = 0, len(_held(data))
    for answer in _answers(detector, data):
        if kept is None:
            kept = np.lib.format.open_memmap(file, "w+", np.float32, (count, *answer.shape[1:]))
        kept[start : start + len(answer)] = answer
        start += len(answer)
        if on_progress is not None:
            on_progress(start, count)
    if kept is not None:
        kept.flush()


def _answers(detector: Detector, data: SliceDataset) -> Iterator[np.ndarray]:
    """Yield the answers in the order of the data: float32 [n, C, S, S], of slices or of a volume's slices."""
    if data.whole:
        for stack in series_stacks(data):
            for part in _asked_at_once(detector, stack.batch):
                yield detector.answer(part).cpu().numpy()
        return
    for batch in batches(data, detector.config.batch_size):
        seeds = tuple(content_id(data, item) for item in batch.ids)
        yield detector.answer(replace(batch, ids=seeds)).cpu().numpy()


def _asked_at_once(detector: Detector, series: Batch) -> list[Batch]:
    """Return a series as a model sees it: a volume in one piece, slices no more than a batch at once."""
    if detector.volumes is not None:
        return [series]
    return [series.part(rows) for rows in in_parts(detector.config.batch_size, len(series.ids))]


def _held(data: SliceDataset) -> list[SliceRef]:
    """Return the slices that have an answer, in order: those of the data, and of whole series the others too."""
    if not data.whole:
        return list(data.slices)
    return [ref for series in data.series for ref in series.plan.members]


def _opened(file: Path, count: int) -> np.ndarray:
    return np.load(file, mmap_mode="r") if count else np.zeros((0, 1, 1, 1), np.float32)


def _question(detector: Detector, data: SliceDataset) -> dict[str, Any]:
    """Return what the answers depend on: model, precision, seed, tiles of volumes, slices in their order."""
    origin, held = detector.model.origin, _held(data)
    if origin is None:
        raise ConfigError(
            "The model's answers are kept under its SHA-256. Save the model first: save_model(folder, model)"
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
