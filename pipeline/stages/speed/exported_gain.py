"""Speed of an exported detector against the same one in torch, scoring the same images in turns."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

from pipeline.detection.detector import Detector
from pipeline.methods.artefact import method_spec
from pipeline.methods.onnx_network import ONNX_METHODS, export_network
from pipeline.stages.speed.scoring_ratio import made_up_calibration, random_batch, score_all, seconds_of


def measure_export_gain(detector: Detector, images: int, rounds: int = 5) -> tuple[float, float, float]:
    """Return images per CPU second of the exported detector and of the one in torch, and the median of their ratios.

    Both give residual, heatmap, score and p-value; only the method's answer comes from another program.

    Args:
        detector: one model of slices, on the CPU.
        images: per round, at least one batch of the detector's size.
        rounds: after a warm-up.
    """
    detector, size = made_up_calibration(detector), detector.config.batch_size
    with tempfile.TemporaryDirectory(prefix="nightread-speed-") as place:
        file = Path(place) / "network.onnx"
        kind = export_network(detector.method, file)
        network = ONNX_METHODS[kind](method_spec(detector.method), file).eval()
        exported = replace(detector, model=replace(detector.model, method=network))
        todo = [random_batch(detector, size, first) for first in range(0, max(images, size), size)]
        pairs = [
            [seconds_of(one, lambda one=one: score_all(one, todo, None)) for one in (exported, detector)]  # type: ignore[misc]
            for _ in range(rounds + 1)
        ][1:]
    count = size * len(todo)
    ours, bare = (count / median(column) for column in zip(*pairs, strict=True))
    return ours, bare, median(torch / onnx for onnx, torch in pairs)
