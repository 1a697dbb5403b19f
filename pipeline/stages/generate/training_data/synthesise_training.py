"""Task `synthesise-training`: a detector taught with synthetic images, against plain augmentation at equal CPU time.

Patients are dealt into folds, and each is held out once. For each share of the training patients a sampler is trained
on these patients alone, and the same detector is taught in five ways. Synthetic normals are marked by their ids, and
are mixed in only because the task's configuration says so; they are never written where a training could find them.
"""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any

import pandas as pd
import torch

from pipeline import durable
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.sets.routes import load_routes
from pipeline.data.sets.selection import list_patients_on
from pipeline.data.sets.splits import assign_sets
from pipeline.stages.generate.task_folder import TaskFolder
from pipeline.stages.generate.task_report import TaskReport, recorded
from pipeline.stages.generate.training_data.synthesis_report import report_synthesis
from pipeline.stages.generate.training_data.training_arms import CellResult, open_cell, require_sampler, run_cell
from pipeline.stages.generate.training_data.training_data_task import SynthesiseTrainingTask

OnProgress = Callable[[int, int], None]
Cells = dict[float, list[CellResult]]


def run_synthesise_training(
    config: SynthesiseTrainingTask,
    settings: Settings,
    progress: bool = False,
    on_progress: OnProgress | None = None,
) -> TaskReport:
    """Train all arms on all shares of the patients, and report the curve; finished cells are not trained again.

    Args:
        config: the task.
        settings: the workspace.
        progress: not used; `on_progress` counts the cells.
        on_progress: called with (cells done, cells).

    Raises:
        ConfigError: the method does not sample, or has no such option.
        EmptySelection: a share leaves no patient, or a fold lacks normal or abnormal slices.
        TrainingDiverged: NaN or infinity in a loss.
    """
    require_sampler(config)
    with Catalogue.open(settings) as catalogue:
        patients = list_patients_on(catalogue, config.detector.data.route, load_routes(settings.routes_folder))
        assign_sets(catalogue, config.detector.data.splits, patients)
    folder = _make_folder(config, settings)
    with recorded(folder, settings) as summary:
        places = [(share, fold) for share in config.patients for fold in range(config.folds)]
        cells = {place: open_cell(config, place[1], place[0], settings) for place in places}
        results: Cells = {share: [] for share in config.patients}
        for number, (share, fold) in enumerate(places, start=1):
            cell = cells[share, fold]
            result = _read(folder, cell.name)
            if result is None:
                result = run_cell(config, cell, folder.path / "training" / cell.name)
                _write(folder, cell.name, result)
            results[share].append(result)
            if on_progress is not None:
                on_progress(number, len(places))
        counts = {share: [cells[share, fold].patients for fold in range(config.folds)] for share in config.patients}
        report = report_synthesis(config, folder, results, counts, cells[places[-1]].learned, settings)
        report.publish(config, settings)
        summary |= report.metrics
    return report


def _make_folder(config: SynthesiseTrainingTask, settings: Settings) -> TaskFolder:
    run: Any = config.run
    facts = {"run": "", "method": f"{config.detector.method.name} with {run.method.name}", "model_sha256": ""}
    route, values = config.detector.data.route, config.model_dump(mode="json")
    task_id = f"{route}-{config.task}-{config.fingerprint()[:12]}"
    return TaskFolder.make(settings, task_id, {"config.json": values, "task.json": {**facts, "route": route}})


def _write(folder: TaskFolder, name: str, result: CellResult) -> None:
    """Keep what a cell scored; the record comes last, so that a cell without one is computed again."""
    folder.write_part(name, 0, result.samples, 0.0)
    durable.write(folder.path / f"{name}.csv", result.frame.to_csv(index=False))
    folder.write(f"{name}.json", {"seconds": result.seconds, "trained_on": result.trained_on})


def _read(folder: TaskFolder, name: str) -> CellResult | None:
    part, file = folder.read_part(name, 0), folder.path / f"{name}.csv"
    if part is None or not file.is_file() or not folder.has(f"{name}.json"):
        return None
    record = folder.read(f"{name}.json")
    frame = pd.read_csv(StringIO(file.read_text(encoding="utf-8")), dtype={"unit_id": str, "patient_id": str})
    return CellResult(frame, record["seconds"], record["trained_on"], torch.as_tensor(part[0]))
