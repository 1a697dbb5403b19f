"""Anomaly maps of a scoring run that has not ended: on disk, since only its end says which studies are flagged.

A worker writes the maps of every study that it has scored, as they are on the model's grid (a few kilobytes); the
worker that ends the run brings those of the flagged studies to their native grid as heatmaps, and removes the rest.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import durable
from pipeline.data.images.dataset import SliceDataset
from pipeline.detection.scorer import Scorer
from pipeline.types import SliceResult, Step

HEATMAPS_A_STUDY = 3  # maps are stored for this many most anomalous slices of a flagged study
FOLDER, HEATMAPS = "scoring", "heatmaps"


class BestSlices:
    """The results of each study's most anomalous slices, with their maps, while they are being scored."""

    def __init__(self, data: SliceDataset) -> None:
        self._data = data
        self._best: dict[str, list[SliceResult]] = {}

    def offer(self, item: SliceResult) -> None:
        """Keep the slice as long as it is among its study's highest."""
        if math.isnan(item.score) or item.values is None:
            return
        best = self._best.setdefault(self._data.ref(item.id).study_id, [])
        best.append(item)
        best.sort(key=lambda one: (-one.score, one.id))
        del best[HEATMAPS_A_STUDY:]

    def write(self, maps: PendingMaps) -> None:
        """Write the maps of every study."""
        for study, items in self._best.items():
            refs = [self._data.ref(item.id) for item in items]
            maps.write(study, {f"{ref.instance_id}.{ref.frame}": item for ref, item in zip(refs, items, strict=True)})


class PendingMaps:
    """The maps of one scoring run, one npz file per study.

    Args:
        folder: of the training run whose detector scores.
        run_id: of the scoring run.
    """

    def __init__(self, folder: Path, run_id: str) -> None:
        self._run, self._pending = folder, folder / FOLDER / run_id

    def write(self, study: str, items: dict[str, SliceResult]) -> None:
        """Write a study's maps, by `instance.frame`; a later writing replaces an earlier one."""
        arrays: dict[str, Any] = {}
        for name, item in items.items():
            steps = json.dumps([step.to_json() for step in item.history])
            arrays |= {f"{name}.values": item.values, f"{name}.body": item.body, f"{name}.history": np.array(steps)}
        with durable.writing(self._pending / f"{study}.npz") as part, part.open("wb") as stream:
            np.savez(stream, **arrays)

    def publish(self, studies: Collection[str], detector: Scorer) -> None:
        """Write the heatmaps of these studies: one npz file each, float16 [H, W] on the native grid."""
        folder = self._run / HEATMAPS
        folder.mkdir(parents=True, exist_ok=True)
        for study in sorted(studies):
            try:
                pending = _read(self._pending / f"{study}.npz")
            except FileNotFoundError:  # a method without maps, or another worker has ended the run
                continue
            arrays: dict[str, Any] = {name: _native(item, detector) for name, item in pending.items()}
            with durable.writing(folder / f"{study}.npz") as part, part.open("wb") as stream:
                np.savez_compressed(stream, **arrays)

    def remove(self) -> None:
        """Remove the run's pending maps."""
        shutil.rmtree(self._pending, ignore_errors=True)


def _native(item: SliceResult, detector: Scorer) -> np.ndarray:
    values = detector.native(item, reconstruction=False).values
    return np.asarray(values).astype(np.float16)


def _read(file: Path) -> dict[str, SliceResult]:
    with np.load(file, allow_pickle=False) as arrays:
        return {
            name: SliceResult(
                name,
                0.0,
                arrays[f"{name}.values"],
                arrays[f"{name}.body"],
                None,
                tuple(Step(step["name"], step["params"]) for step in json.loads(str(arrays[f"{name}.history"]))),
            )
            for name in (key.removesuffix(".values") for key in arrays.files if key.endswith(".values"))
        }
