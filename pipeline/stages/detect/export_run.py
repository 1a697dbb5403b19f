"""Stage `export`: a calibrated detector as ONNX networks, checked on held-out normals against the one in the run."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import durable
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.detection.conformal import Calibration
from pipeline.detection.exported_detector import EXPORT, NETWORK, add_facts, write_export
from pipeline.detection.scorer import Scorer
from pipeline.detection.stored_detector import load_detector
from pipeline.errors import ArtefactError, ConfigError, EmptySelection
from pipeline.sealed_folder import hash_file
from pipeline.stages.detect.calibrate import units
from pipeline.stages.run.open_run import OpenRun
from pipeline.stages.run.run_folder import RunFolder
from pipeline.stages.run.score_slices import score_dataset
from pipeline.tracking.experiment import track
from pipeline.types import SetName

SLICES = 64  # scored by both detectors, or a few more, since studies stay whole
CHECKED_ON: tuple[SetName, ...] = ("validate", "train")
TOLERANCE = 1e-4  # largest difference of a raw score, relative to scores above 1


@dataclass(frozen=True, slots=True)
class ExportReport:
    """An exported detector and how it agreed with the one in the run.

    Attributes:
        folder: of the export.
        sha256: of its `export.json`, which lists the SHA-256 of everything else.
        detector: SHA-256 of the detector, the same as in the run.
        networks, bytes: number of networks, and their size.
        slices, units: scored by both detectors: slices of normals of `set_name`, and the studies or slices with a
            p-value of their own.
        difference: largest difference of a raw score.
        cpu_seconds, cpu_seconds_torch: of reading and scoring those slices.
    """

    folder: str
    sha256: str
    detector: str
    networks: int
    bytes: int
    set_name: SetName
    slices: int
    units: int
    difference: float
    cpu_seconds: float
    cpu_seconds_torch: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def sentence(self) -> str:
        """Return the report in words."""
        return (
            f"Exported to {self.folder}: {self.networks} network(s), {self.bytes / 2**20:.1f} MiB, SHA-256 "
            f"{self.sha256[:12]}…. On {self.slices} slices of {self.set_name}, raw scores differ by "
            f"{self.difference:.1e} at most, and all {self.units} p-values are equal; {self.cpu_seconds:.2f} CPU "
            f"seconds against {self.cpu_seconds_torch:.2f} with torch."
        )


@dataclass(frozen=True, slots=True)
class _Answers:
    """Raw scores of slices and of calibration units, p-values of the units, and CPU seconds."""

    slices: np.ndarray
    units: np.ndarray
    p_values: np.ndarray
    seconds: float


def export_run(run_id: str, settings: Settings, out: Path) -> ExportReport:
    """Export the calibrated detector of a run; nothing is written unless the result agrees with it.

    Both score normals of validate (of train, if nothing was held out): not of calibrate, where a p-value depends on
    ties with the scan's own score.

    Args:
        run_id: the run's id, or its beginning.
        settings: the workspace.
        out: a folder that does not exist or is empty.

    Raises:
        ArtefactError: the run is not calibrated, or a file of it is missing or altered.
        ConfigError: `out` has content, a method cannot be exported, or the scores or p-values differ.
        EmptySelection: there are no normals to check the export on.
    """
    folder = RunFolder.find(settings, run_id)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists and is not an empty folder. Name a new folder with --out.")
    with Catalogue.open(settings) as catalogue, durable.writing_folder(out.absolute()) as part:
        opened = OpenRun.load(folder.read_calibrated(), catalogue, settings)
        write_export(folder.detector, part)
        agreement = _check(opened, load_detector(part, opened.ref.sha256))
        add_facts(part, {"checked": agreement})
        with track(settings, opened.route, opened.config.name, folder.read("mlflow.json")["run_id"]) as tracked:
            tracked.log_text((part / EXPORT).read_text(), EXPORT)
    networks = list(out.rglob(NETWORK))
    size = sum(file.stat().st_size for file in networks)
    return ExportReport(str(out), hash_file(out / EXPORT), opened.ref.sha256, len(networks), size, **agreement)


def _check(opened: OpenRun, exported: Scorer) -> dict[str, Any]:
    """Return how the exported detector agrees with the run's, or refuse it."""
    set_name, studies = _choose_studies(opened)
    before, after = (_answers(opened, one, set_name, studies) for one in (opened.detector, exported))
    difference = max(_difference(before.slices, after.slices), _difference(before.units, after.units))
    unequal = int((before.p_values != after.p_values).sum())
    if not difference <= TOLERANCE or unequal:
        raise ConfigError(
            f"The exported detector does not agree: raw scores of {len(before.slices)} slices differ by up to "
            f"{difference:.2g} (allowed: {TOLERANCE:g}), and {unequal} of {len(before.p_values)} p-values. Nothing was "
            "exported. Methods that round to codes may do this; export a run of another method."
        )
    return {
        "set_name": set_name,
        "slices": len(before.slices),
        "units": len(before.p_values),
        "difference": difference,
        "cpu_seconds": round(after.seconds, 3),
        "cpu_seconds_torch": round(before.seconds, 3),
    }


def _choose_studies(opened: OpenRun) -> tuple[SetName, set[str]]:
    """Return the first set of normals that has any, and its first studies, about `SLICES` slices."""
    for set_name in CHECKED_ON:
        studies: set[str] = set()
        for place, ref in enumerate(opened.choose(sets=(set_name,)).slices):
            if place >= SLICES and ref.study_id not in studies:
                break
            studies.add(ref.study_id)
        if studies:
            return set_name, studies
    raise EmptySelection(
        f"The sets validate and train of {opened.route!r} have no normal scans any more, so the export cannot be "
        "checked. Restore them, or export from the workspace in which the run was trained."
    )


def _answers(opened: OpenRun, detector: Scorer, set_name: SetName, studies: set[str]) -> _Answers:
    data = opened.dataset(opened.choose(sets=(set_name,), study_ids=studies), cache="none")
    began = time.process_time()
    scores, _ = score_dataset(detector, data)
    seconds = time.process_time() - began
    each = np.array([unit.score for unit in units(detector, scores, opened.config)])
    calibration = detector.calibration
    if not isinstance(calibration, Calibration):
        raise ArtefactError("The detector is not calibrated, so it has no p-values. Calibrate the run first.")
    return _Answers(np.array([score.score for score in scores]), each, calibration.p_values(each), seconds)


def _difference(before: np.ndarray, after: np.ndarray) -> float:
    """Return the largest difference, relative to values above 1; infinite where only one of two values is a number."""
    if before.shape != after.shape or (np.isnan(before) != np.isnan(after)).any():
        return math.inf
    return float(np.nanmax(np.abs(after - before) / np.maximum(1, np.abs(before)), initial=0.0))
