"""`nightread benchmark speed`: our ingest, training and scoring against bare loops over the same data, as ratios.

The training of large networks is also set against the machine's peak, see `peak_share`.
"""

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

from pipeline.config import Settings, find_shipped_file, read_values
from pipeline.data.images.intensity import MRPercentile
from pipeline.data.images.normalise import Normaliser
from pipeline.data.ingest.ingest import ingest
from pipeline.detection.config import DetectionConfig
from pipeline.detection.detector import Detector
from pipeline.detection.residual import ResidualConfig
from pipeline.dicom.phantom.folder import write_phantoms
from pipeline.methods import parse_method
from pipeline.methods.ae import AeConfig
from pipeline.methods.base import MethodConfig
from pipeline.methods.dae import DaeConfig
from pipeline.methods.stored_model import Model
from pipeline.stages.speed.peak_share import PRECISIONS, measure_peak_share
from pipeline.stages.speed.scoring_ratio import measure_scoring_ratio
from pipeline.stages.speed.training_ratio import measure_training_ratio
from pipeline.training.precision import name_processor

ROUNDS = 3
Row = dict[str, Any]
METHODS: tuple[tuple[Callable[[], MethodConfig], int], ...] = (
    (AeConfig, 64),
    (DaeConfig, 16),
)  # with their recommended batch sizes
SMALL = DetectionConfig(residual=ResidualConfig(kind="l1", median=5, erode=1))
HEADS = ("gated_dae_heads", "ladder_fsq", "ladder_vae", "synthetic_lesion_heads")  # shipped, at 128 px
LARGE = ("gated_dae_heads", "ladder_fsq", "ladder_vae", "ddpm_128")


def speed(files: int, images: int) -> list[Row]:
    """Measure, and return one row per comparison: name, ours, bare, ratio (above 1: ours is faster), unit.

    Every ratio is the median of rounds in which both sides alternate, so that a busy machine slows both equally.

    Args:
        files: DICOM files of the ingest comparison (uncompressed and compressed, 256 pixels).
        images: images of the scoring comparison, of which at most 128 at 128 px.
    """
    return [*_ingest_rows(files), *_training_rows(), *_scoring_rows(images), *_peak_rows()]


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
    for config, batch_size in METHODS:
        yield _scoring_row(config(), 64, SMALL.model_copy(update={"batch_size": batch_size}), images)
    heads = DetectionConfig.model_validate(read_values(find_shipped_file("configs/runs/lgg.yaml"))["detection"])
    for name in HEADS:
        yield _scoring_row(_shipped(name), 128, heads.model_copy(update={"batch_size": 16}), min(images, 128))


def _scoring_row(config: MethodConfig, size: int, detection: DetectionConfig, images: int) -> Row:
    normaliser = Normaliser(MRPercentile(image_size=size))
    detector = Detector(Model(config.build(size), normaliser), detection, "speed")
    measured = measure_scoring_ratio(detector, images=images, repeats=9)
    name = f"score {config.name} {size} px, heatmap and p-value / forward pass"
    return _numbers(name, measured.scored, measured.bare, measured.ratio, "images per CPU second")


def _peak_rows() -> Iterator[Row]:
    """Yield training of large networks, in GFLOP per CPU second, against the peak."""
    processor = name_processor("cpu")
    for name in LARGE:
        for precision in PRECISIONS:
            measured = measure_peak_share(_shipped(name), precision)
            what = f"train {name} 128 px, {precision}, batch 16 / largest product of {processor}"
            yield _numbers(what, measured.training, measured.peak, measured.share, "GFLOP per CPU second")


def _shipped(name: str) -> MethodConfig:
    return parse_method(read_values(find_shipped_file(f"configs/methods/{name}.yaml")))


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _row(name: str, count: int, pairs: Sequence[tuple[float, float]], unit: str) -> Row:
    ours, bare = (count / median(seconds) for seconds in zip(*pairs, strict=True))
    return _numbers(name, ours, bare, median(b / o for o, b in pairs), unit)


def _numbers(name: str, ours: float, bare: float, ratio: float, unit: str) -> Row:
    return {"comparison": name, "ours": round(ours, 1), "bare": round(bare, 1), "ratio": round(ratio, 2), "unit": unit}
