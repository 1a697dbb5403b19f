"""A model's answers for a set, computed once and kept on disk: what the score grid reads again and again."""

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

from pipeline.data.dataset import SliceDataset, batches
from pipeline.detection.detector import Detector
from pipeline.detection.slices import content_id, series_stacks
from pipeline.stages.measuring import OnProgress
from pipeline.types import Batch, SliceRef


@dataclass(frozen=True, slots=True)
class KeptAnswers:
    """The answers of one data set, in its order.

    Attributes:
        data: where images and bodies come from.
        answers: float32 [N, C, *spatial], a memory map: what is not looked at is not in memory.
        batch_size: slices read at once.
    """

    data: SliceDataset
    answers: np.ndarray
    batch_size: int

    @property
    def refs(self) -> tuple[SliceRef, ...]:
        """The slices."""
        return self.data.slices

    def __iter__(self) -> Iterator[tuple[Batch, torch.Tensor]]:
        """Yield batches with their answers."""
        start = 0
        for batch in batches(self.data, self.batch_size):
            end = start + len(batch.ids)
            yield batch, torch.from_numpy(np.array(self.answers[start:end]))
            start = end


def keep_answers(
    detector: Detector, data: SliceDataset, folder: Path, on_progress: OnProgress | None = None
) -> KeptAnswers:
    """Return the model's answers, computed unless they are in `folder` for these slices and weights.

    One forward pass a slice, with the randomness that scoring gives it; float32, so that a grid's cell is exactly what
    a detector of that setting scores. A pass that was stopped leaves nothing that would be taken for whole.

    Args:
        detector: a reconstructor or mapper.
        data: cached, so that series that cannot be used are known before.
        folder: of this set; replaced when slices or weights are others.
        on_progress: called with (slices done, slices in all).
    """
    file, question = folder / "answers.npy", _question(detector, data)
    if _read(folder / "index.json") != question:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _compute(detector, data, file, on_progress)
        part = folder / "index.json.part"
        part.write_text(json.dumps(question))
        part.replace(folder / "index.json")
    return KeptAnswers(data, _opened(file, len(data)), detector.config.batch_size)


def _compute(detector: Detector, data: SliceDataset, file: Path, on_progress: OnProgress | None) -> None:
    kept: np.ndarray | None = None
    start = 0
    for answer in _answers(detector, data):
        if kept is None:
            kept = np.lib.format.open_memmap(file, "w+", np.float32, (len(data), *answer.shape[1:]))
        kept[start : start + len(answer)] = answer
        start += len(answer)
        if on_progress is not None:
            on_progress(start, len(data))
    if kept is not None:
        kept.flush()


def _answers(detector: Detector, data: SliceDataset) -> Iterator[np.ndarray]:
    """Yield the answers in the order of the data: float32 [n, C, S, S], of slices or of a volume's slices."""
    if detector.volumes is not None:
        for stack in series_stacks(data):
            yield detector.answer(stack.batch)[list(stack.wanted)].cpu().numpy()
        return
    for batch in batches(data, detector.config.batch_size):
        seeds = tuple(content_id(data, item) for item in batch.ids)
        yield detector.answer(replace(batch, ids=seeds)).cpu().numpy()


def _opened(file: Path, count: int) -> np.ndarray:
    return np.load(file, mmap_mode="r") if count else np.zeros((0, 1, 1, 1), np.float32)


def _question(detector: Detector, data: SliceDataset) -> dict[str, Any]:
    """What the answers depend on: weights, normalisation, precision, seed, slices in their order."""
    digest = hashlib.sha256()
    for name, value in sorted(detector.method.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    spec = detector.spec
    asked = [spec["method"], spec["normaliser"], spec["seed"], detector.config.precision]
    if detector.volumes is not None:
        asked += [spec["volumes"], detector.config.tiles.model_dump(mode="json")]
    return {
        "weights": digest.hexdigest(),
        "asked": asked,
        "slices": hashlib.sha256("\n".join(content_id(data, r.slice_id) for r in data.slices).encode()).hexdigest(),
        "count": len(data),
    }


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None
