"""`nightread benchmark speed`: our ingest, training and scoring against bare loops over the same data, as ratios."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from pydicom import dcmread

from pipeline.config import Settings
from pipeline.data.images.intensity import MRPercentile
from pipeline.data.images.normalise import Normaliser
from pipeline.data.ingest.ingest import ingest
from pipeline.detection.config import DetectionConfig
from pipeline.detection.detector import Detector
from pipeline.detection.residual import ResidualConfig
from pipeline.dicom.phantom.folder import write_phantoms
from pipeline.methods.ae import AeConfig
from pipeline.methods.base import MethodConfig
from pipeline.methods.dae import DaeConfig
from pipeline.methods.stored_model import Model
from pipeline.stages.speed.scoring_ratio import measure_scoring_ratio
from pipeline.stages.speed.training_ratio import measure_training_ratio

ROUNDS = 3
Row = dict[str, Any]
METHODS: tuple[tuple[Callable[[], MethodConfig], int], ...] = (
    (AeConfig, 64),
    (DaeConfig, 16),
)  # with their recommended batch sizes


def speed(files: int, images: int) -> list[Row]:
    """Measure, and return one row per comparison: name, ours, bare, ratio (above 1: ours is faster), unit.

    Every ratio is the median of rounds in which both sides alternate, so that a busy machine slows both equally.

    Args:
        files: DICOM files of the ingest comparison (uncompressed and compressed, 256 pixels).
        images: images of the scoring comparison.
    """
    return [*_ingest_rows(files), *_training_rows(), *_scoring_rows(images)]


def _ingest_rows(files: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="nightread-speed-") as place:
        inbox = Path(place) / "inbox"
        paths = [file.path for file in write_phantoms(inbox, files, "CT", 0.0, 3, size=256).files]
        others: dict[str, Callable[[], object]] = {"bare pydicom loop": lambda: _pydicom(paths)}
        if shutil.which("dcmdump"):
            others["dcmdump, one process for all"] = lambda: _dcmdump(inbox)
        for name, other in others.items():
            pairs = [(_ours(inbox, Path(place) / f"{name} {turn}"), _seconds(other)) for turn in range(ROUNDS)]
            yield _row(f"ingest / {name}", files, pairs, "files/s")


def _ours(inbox: Path, workspace: Path) -> float:
    workspace.mkdir()
    return _seconds(lambda: ingest([inbox], Settings(workspace=workspace)))


def _pydicom(paths: Sequence[Path]) -> None:
    for path in paths:
        _ = dcmread(path).pixel_array


def _dcmdump(inbox: Path) -> None:
    # reads and prints headers only, without decoding pixels
    subprocess.run(
        ["dcmdump", "-q", "+sd", "+r", str(inbox)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    )


def _training_rows() -> Iterator[Row]:
    for config, batch_size in METHODS:
        measured = measure_training_ratio(config(), batch_size=batch_size)
        name = f"train {measured.method} 64 px, batch {batch_size} / bare loop"
        yield _numbers(
            name, measured.images_per_second, measured.bare_images_per_second, measured.ratio, "images per CPU second"
        )


def _scoring_rows(images: int) -> Iterator[Row]:
    plain = DetectionConfig(residual=ResidualConfig(kind="l1", median=5, erode=1))
    for config, batch_size in METHODS:
        method = config().build(64)
        sized = plain.model_copy(update={"batch_size": batch_size})
        detector = Detector(Model(method, Normaliser(MRPercentile())), sized, "speed")
        measured = measure_scoring_ratio(detector, images=images, repeats=9)
        name = f"score {method.config.name} 64 px, heatmap and p-value / forward pass"
        yield _numbers(name, measured.scored, measured.bare, measured.ratio, "images per CPU second")


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _row(name: str, count: int, pairs: Sequence[tuple[float, float]], unit: str) -> Row:
    ours, bare = (count / median(seconds) for seconds in zip(*pairs, strict=True))
    return _numbers(name, ours, bare, median(b / o for o, b in pairs), unit)


def _numbers(name: str, ours: float, bare: float, ratio: float, unit: str) -> Row:
    return {"comparison": name, "ours": round(ours, 1), "bare": round(bare, 1), "ratio": round(ratio, 2), "unit": unit}
