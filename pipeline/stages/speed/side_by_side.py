"""`nightread benchmark anomalib RUN ...`: our detectors and anomalib's on the same scans, in one run on one machine.

anomalib needs torchvision, which cannot be installed beside our torch, so its half (`anomalib_half`) runs by the Python
of an environment of its own, and gets the normalised slices as 8-bit PNG files of the same size.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline import durable
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.dataset import SliceDataset
from pipeline.detection.scorer import Scorer
from pipeline.detection.stored_detector import load_detector
from pipeline.errors import ConfigError, EmptySelection
from pipeline.nn.backbones import find_lite_weights
from pipeline.stages.run.open_run import OpenFolder
from pipeline.stages.run.run_folder import RunFolder

Row = dict[str, Any]
HALF = Path(__file__).with_name("anomalib_half.py")
FAILURE = "failure.json"  # written by anomalib's half beside its answer
ANOMALIB_MODELS = ("patchcore", "padim", "stfpm")


@dataclass(frozen=True, slots=True)
class _Scans:
    """Labelled slices of develop in order, by slice id."""

    ids: tuple[str, ...]
    abnormal: np.ndarray
    central: np.ndarray

    def row(self, detector: str, seconds: Sequence[float], scores: dict[str, float], fit: float | None) -> Row:
        """Return one row of the table; `scores` are by slice id, and slices without a score rank lowest."""
        values = np.array([scores.get(item, np.nan) for item in self.ids])
        return {
            "detector": detector,
            "images_per_cpu_second": round(len(self.ids) / median(seconds), 1),
            "auroc": _auroc(values, self.abnormal),
            "auroc_central": _auroc(values[self.central], self.abnormal[self.central]),
            "fit_cpu_seconds": None if fit is None else round(fit),
        }


def measure_beside_anomalib(
    settings: Settings, run_ids: Sequence[str], python: Path, models: Sequence[str], rounds: int = 3
) -> list[Row]:
    """Score the labelled slices of develop by calibrated runs and by anomalib's models, one thread each.

    Ours read the stored scans, normalise them, and give score, heatmap and p-value; anomalib's predict loop reads PNG
    files of the normalised slices, and gives score and heatmap, once without and once with the picture that it draws of
    each by default. Seconds are CPU time, medians over rounds; ours are timed before and after anomalib's.

    Args:
        settings: the workspace.
        run_ids: calibrated runs that learned from the same normals; anomalib's models learn from these too.
        python: the interpreter of an environment with anomalib.
        models: some of `ANOMALIB_MODELS`.
        rounds: passes over the scans per detector.

    Raises:
        ConfigError: the runs learned from different normals, or anomalib's half failed.
        EmptySelection: develop lacks normal or abnormal slices.
    """
    torch.set_num_threads(1)
    folders = [RunFolder.find(settings, run_id) for run_id in run_ids]
    _refuse_other_normals(folders)
    with Catalogue.open(settings) as catalogue, _scratch_folder(settings) as place:
        runs = [OpenFolder(folder, folder.read_config(), catalogue, settings) for folder in folders]
        scans = _write_pictures(runs[0], place)
        seconds: dict[str, list[float]] = {run.folder.run_id: [] for run in runs}
        scores = {run.folder.run_id: _score(run, seconds[run.folder.run_id], (rounds + 1) // 2) for run in runs}
        answers = _ask_anomalib(python, place, runs[0].config.data.normaliser.image_size, models, rounds)
        for run in runs:
            _score(run, seconds[run.folder.run_id], rounds // 2)
    ours = [scans.row(f"Nightread, {name}", spent, scores[name], None) for name, spent in seconds.items()]
    return [*ours, *(row for answer in answers for row in _anomalib_rows(scans, answer))]


@contextmanager
def _scratch_folder(settings: Settings) -> Iterator[Path]:
    """Yield a folder in the workspace's cache, removed afterwards: pictures of scans do not leave the workspace.

    What a killed run left there is removed a day later, by the next run.
    """
    cache = settings.workspace / "cache"
    durable.make_folder(cache)
    durable.sweep(cache)
    with tempfile.TemporaryDirectory(prefix=".anomalib-", suffix=durable.PART, dir=cache) as place:
        yield Path(place)


def _refuse_other_normals(folders: Sequence[RunFolder]) -> None:
    normals = {folder.run_id: str(folder.read("data.json")["train"]["sha256"]) for folder in folders}
    first = next(iter(normals))
    if others := [run for run, sha256 in normals.items() if sha256 != normals[first]]:
        raise ConfigError(
            f"{others[0]} learned from other normals than {first}, so the comparison would not be fair. Name runs of "
            "the same route and fold."
        )


def _write_pictures(run: OpenFolder, folder: Path) -> _Scans:
    """Write the normals of train and the labelled slices of develop, and return the latter."""
    for name, data in (("normals", _data(run, "train")), ("scans", _data(run, "develop"))):
        (folder / name).mkdir()
        for number in range(len(data)):
            pixels = (data[number]["image"][0] + 1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / name / f"{number:06d}.png")
    refs = _data(run, "develop").slices
    low, high = run.config.evaluation.central
    places = np.array([ref.relative_position for ref in refs])
    abnormal = np.array([ref.label == "abnormal" for ref in refs])
    if not abnormal.any() or abnormal.all():
        raise EmptySelection("The comparison needs normal and abnormal slices in develop. Import labels of both.")
    return _Scans(tuple(ref.slice_id for ref in refs), abnormal, (places > low) & (places < high))


def _data(run: OpenFolder, set_name: Any) -> SliceDataset:
    return run.dataset(run.choose(sets=(set_name,)), cache="none")


def _score(run: OpenFolder, seconds: list[float], rounds: int) -> dict[str, float]:
    """Score the slices `rounds` times, adding the CPU seconds of each, and return the scores by slice id."""
    detector, scores = load_detector(run.folder.detector), {}
    for _ in range(rounds):
        data = _data(run, "develop")
        began = time.process_time()
        scores = _read_and_score(detector, data)
        seconds.append(time.process_time() - began)
    return scores


def _read_and_score(detector: Scorer, data: SliceDataset) -> dict[str, float]:
    scores = {result.id: result.score for result in detector.score_slices(data)}
    if detector.calibration is not None:
        detector.calibration.p_values(np.array(list(scores.values())))
    return scores


def _ask_anomalib(python: Path, folder: Path, size: int, models: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    request = {"weights": find_lite_weights("efficientnet_lite0"), "size": size, "models": models, "rounds": rounds}
    (folder / "request.json").write_text(json.dumps(request))
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [str(python.absolute()), str(HALF), str(folder)]
    try:
        done = subprocess.run(command, cwd=folder, env=alone, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ConfigError(
            f"{python} cannot be run ({error.strerror}). Give the Python of anomalib's environment."
        ) from None
    if done.returncode != 0:
        raise ConfigError(_why(folder, done))
    answers: list[dict[str, Any]] = json.loads((folder / "answer.json").read_text())
    return answers


def _why(folder: Path, done: subprocess.CompletedProcess[str]) -> str:
    """Return what failed in anomalib's half, and what to do about it."""
    last = done.stderr.strip().splitlines()[-1:] or ["it printed nothing"]
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return f"anomalib's half was ended by {name}. If memory was short, compare fewer models with --model."
    if (folder / FAILURE).is_file():
        failed = json.loads((folder / FAILURE).read_text())
        return (
            f"anomalib's model {failed['model']} failed while it was {failed['doing']}: {last[0]}. Leave it out with "
            "--model, or see anomalib's documentation."
        )
    if last[0].startswith(("ModuleNotFoundError", "ImportError")):
        return (
            f"The Python of --python cannot import anomalib's half: {last[0]}. Give that of an environment with "
            "anomalib 2.7, such as one made by `python -m venv v && v/bin/pip install anomalib`."
        )
    return f"anomalib's half ended with code {done.returncode} before any model began: {last[0]}."


def _anomalib_rows(scans: _Scans, answer: dict[str, Any]) -> list[Row]:
    scores = {item: answer["scores"][f"{number:06d}"] for number, item in enumerate(scans.ids)}
    ways = {"plain": "no pictures", "drawn": "with its pictures"}
    return [
        scans.row(f"anomalib, {answer['name']}, {words}", answer["seconds"][way], scores, answer["fit_seconds"])
        for way, words in ways.items()
    ]


def _auroc(scores: np.ndarray, abnormal: np.ndarray) -> float | None:
    from sklearn.metrics import roc_auc_score

    if not abnormal.any() or abnormal.all():
        return None
    return round(float(roc_auc_score(abnormal, np.nan_to_num(scores, nan=np.finfo(float).min))), 3)
