"""`nightread benchmark speed`: our ingest, training and scoring against bare loops over the same data, as ratios.

The training of large networks is also set against the machine's peak, see `peak_share`.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from pydicom import dcmread

from pipeline.config import DecodeLimits, Settings, find_shipped_file, read_values
from pipeline.data.images.intensity import MRPercentile
from pipeline.data.images.normalise import Normaliser
from pipeline.data.ingest.ingest import ingest
from pipeline.detection.config import DetectionConfig
from pipeline.detection.detector import Detector
from pipeline.detection.residual import ResidualConfig
from pipeline.dicom.decode.read import read_header
from pipeline.dicom.phantom.folder import write_phantoms
from pipeline.methods import parse_method
from pipeline.methods.ae import AeConfig
from pipeline.methods.base import MethodConfig
from pipeline.methods.dae import DaeConfig
from pipeline.methods.stored_model import Model
from pipeline.stages.speed.exported_gain import measure_export_gain
from pipeline.stages.speed.peak_share import PRECISIONS, measure_peak_share
from pipeline.stages.speed.scoring_ratio import measure_scoring_ratio
from pipeline.stages.speed.training_ratio import measure_training_ratio
from pipeline.training.precision import name_processor

ROUNDS = 3
WORKERS = {1: "one decode worker", 2: "two decode workers"}
Row = dict[str, Any]
METHODS: tuple[tuple[Callable[[], MethodConfig], int], ...] = (
    (AeConfig, 64),
    (DaeConfig, 16),
)  # with their recommended batch sizes
SMALL = DetectionConfig(residual=ResidualConfig(kind="l1", median=5, erode=1))
HEADS = ("gated_dae_heads", "ladder_fsq", "ladder_vae", "synthetic_lesion_heads")  # shipped, at 128 px
EXPORTED = ("gated_dae_heads", "ladder_fsq", "synthetic_lesion_heads")
LARGE = ("gated_dae_heads", "ladder_fsq", "ladder_vae", "ddpm_128")


def speed(files: int, images: int) -> list[Row]:
    """Measure, and return one row per comparison: name, ours, bare, ratio (above 1: ours is faster), unit.

    Every ratio is the median of rounds in which both sides alternate, so that a busy machine slows both equally.

    Args:
        files: DICOM files of the ingest comparison (uncompressed and compressed, 256 pixels).
        images: images of the scoring comparison, of which at most 128 at 128 px.
    """
    scored = [*_scoring_rows(images), *_export_rows(min(images, 128))]
    return [*_ingest_rows(files), *_training_rows(), *scored, *_peak_rows()]


def _ingest_rows(files: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="nightread-speed-") as place:
        inbox = Path(place) / "inbox"
        paths = [file.path for file in write_phantoms(inbox, files, "CT", 0.0, 3, size=256).files]
        for workers, name in WORKERS.items():
            pairs = [
                (_ours(inbox, Path(place) / f"{name} {turn}", workers), _seconds(lambda: _pydicom(paths)))
                for turn in range(ROUNDS)
            ]
            yield _row(f"ingest / bare pydicom loop, {name}", files, pairs, "files/s")
        if shutil.which("dcmdump"):
            pairs = [(_seconds(lambda: _headers(paths)), _seconds(lambda: _dcmdump(inbox))) for _ in range(ROUNDS)]
            yield _row("read headers / dcmdump, one process for all", files, pairs, "files/s")


def _ours(inbox: Path, workspace: Path, workers: int) -> float:
    """Return the seconds of an ingest, the start of its workers included, in a workspace that has its tables."""
    settings = Settings(workspace=workspace, workers=workers)
    workspace.mkdir()
    ingest([], settings)
    return _seconds(lambda: ingest([inbox], settings))


def _headers(paths: Sequence[Path]) -> None:
    for path in paths:
        read_header(path, DecodeLimits())


def _pydicom(paths: Sequence[Path]) -> None:
    for path in paths:
        _ = dcmread(path).pixel_array


def _dcmdump(inbox: Path) -> None:
    # prints headers, as `_headers` reads, checks and types them; neither decodes pixels
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
    for name in HEADS:
        yield _scoring_row(_shipped(name), 128, _read_heads_detection(), min(images, 128))


def _read_heads_detection() -> DetectionConfig:
    values = read_values(find_shipped_file("configs/runs/lgg.yaml"))["detection"]
    return DetectionConfig.model_validate(values).model_copy(update={"batch_size": 16})


def _scoring_row(config: MethodConfig, size: int, detection: DetectionConfig, images: int) -> Row:
    measured = measure_scoring_ratio(_detector(config, size, detection), images=images, repeats=9)
    name = f"score {config.name} {size} px, heatmap and p-value / forward pass"
    return _numbers(name, measured.scored, measured.bare, measured.ratio, "images per CPU second")


def _detector(config: MethodConfig, size: int, detection: DetectionConfig) -> Detector:
    return Detector(Model(config.build(size), Normaliser(MRPercentile(image_size=size))), detection, "speed")


def _export_rows(images: int) -> Iterator[Row]:
    """Yield scoring by exported detectors; nothing without the packages of the extra `export`."""
    if not all(map(find_spec, ("onnx", "onnxruntime"))):
        return
    for name in EXPORTED:
        config = _shipped(name)
        ours, bare, ratio = measure_export_gain(_detector(config, 128, _read_heads_detection()), images)
        yield _numbers(f"score {config.name} 128 px, exported / in torch", ours, bare, ratio, "images per CPU second")


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
