"""Cost of scoring beyond the bare forward pass, measured in one run on one machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import cast

import numpy as np
import torch

from pipeline.data.images.letterbox import Letterbox
from pipeline.detection.conformal import Calibration, Unit
from pipeline.detection.detector import Detector
from pipeline.detection.slices import slice_results
from pipeline.errors import ConfigError
from pipeline.methods.capabilities import AnomalyMapper, Reconstructor
from pipeline.nn.rng import Rng
from pipeline.types import Batch, Step


@dataclass(frozen=True, slots=True)
class ScoringRatio:
    """Images per second, and their ratio: the median over pairs of consecutive runs.

    On a CPU these are seconds of processor time, so that a busy machine matters less; on a GPU, of wall time.
    `bare` is `reconstruct` or `anomaly_map` alone on the same batches; `scored` adds residual, heatmap, score and
    p-value.
    """

    bare: float
    scored: float
    ratio: float
    batch_size: int
    image_size: int
    native_shape: tuple[int, int] | None
    threads: int


def measure_scoring_ratio(
    detector: Detector,
    images: int = 256,
    batch_size: int | None = None,
    repeats: int = 5,
    native_shape: tuple[int, int] | None = None,
) -> ScoringRatio:
    """Time the detector against its method's bare forward pass on random images.

    Args:
        detector: detector with heatmaps; if it is not calibrated, random scores are used.
        images: number of images per run.
        batch_size: default the detector's.
        repeats: number of pairs of runs, after a warm-up.
        native_shape: if given, heatmaps and bodies are also resampled to this (rows, columns) grid, as for pixel
            metrics; by default they stay on the model grid.

    Raises:
        ConfigError: the method neither reconstructs nor maps.
    """
    if not detector.has_maps:
        raise ConfigError(
            f"{detector.method.config.name} does not reconstruct or map, so it has no forward pass to compare with. "
            "Choose another method."
        )
    detector = made_up_calibration(detector)
    size = batch_size or detector.config.batch_size
    todo = [random_batch(detector, size, first) for first in range(0, max(images, size), size)]
    step = None if native_shape is None else _step(detector, native_shape)
    count = sum(len(batch.ids) for batch in todo)
    pairs = [
        (
            seconds_of(detector, lambda: _bare(detector, todo)),
            seconds_of(detector, lambda: score_all(detector, todo, step)),
        )
        for _ in range(repeats + 1)
    ][1:]
    bare, scored = (count / median(column) for column in zip(*pairs, strict=True))
    ratio = median(plain / full for plain, full in pairs)
    return ScoringRatio(bare, scored, ratio, size, detector.method.image_size, native_shape, torch.get_num_threads())


def made_up_calibration(detector: Detector) -> Detector:
    """Return the detector with its calibration, or else with one of 1000 made-up scores."""
    if detector.calibration is not None:
        return detector
    return detector.calibrated(Calibration.fit(Unit(str(i), str(i), i * 1e-3) for i in range(1000)))


def random_batch(detector: Detector, size: int, first: int) -> Batch:
    """Return images of noise with most of the grid as body, for a detector of slices; `first` seeds them."""
    shape = detector.method.image_shape
    generator = torch.Generator().manual_seed(first)
    images = torch.rand(size, *shape, generator=generator, dtype=torch.float32) * 2 - 1
    body = torch.ones(size, 1, *shape[1:], dtype=torch.bool)
    body[..., : shape[-1] // 8] = False
    return Batch(images, body, tuple(f"{first + i}" for i in range(size)))


def _step(detector: Detector, shape: tuple[int, int]) -> Step:
    box = Letterbox.fit(shape, detector.normaliser.image_size)
    return Step("normalise", {"low": 0.0, "high": 1000.0, **box.to_json()})


def _bare(detector: Detector, todo: list[Batch]) -> None:
    for batch in todo:
        rng, images = Rng.scoring(detector.seed, batch.ids, detector.device), batch.images.to(detector.device)
        if isinstance(detector.method, AnomalyMapper):
            detector.method.anomaly_map(images, rng)
        else:
            cast(Reconstructor, detector.method).reconstruct(images, rng, batch.body.to(detector.device))


def score_all(detector: Detector, todo: list[Batch], step: Step | None) -> None:
    """Score batches, with heatmaps and p-values; with a `step`, maps are resampled to the native grid."""
    scores: list[float] = []
    for batch in todo:
        for result in slice_results(batch, detector.score_batch(batch)):
            scores.append(result.score)
            if step is not None:
                detector.native(result, step, reconstruction=False)
    cast(Calibration, detector.calibration).p_values(np.asarray(scores))


def seconds_of(detector: Detector, work: Callable[[], None]) -> float:
    """Run the work, and return its CPU seconds, or its wall seconds on a GPU."""
    if detector.device.type == "cpu":
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize(detector.device)
    start = time.perf_counter()
    work()
    torch.cuda.synchronize(detector.device)
    return time.perf_counter() - start
