"""Stage `checkpoints`: which checkpoint of a training stands out most on scans that nobody has labelled (AUCp).

Training keeps the weights with the lowest loss on validate normals. That says how well normal scans are known, and not
how far the others stand out from them: a reconstructor that trains on learns to draw lesions too. AUCp asks for that
without a label, with the doubts of `pipeline.stages.choose.aucp`: read its warnings before its answer. Reads validate,
and incoming scans (or develop with its labels hidden); calibrate, gate and test are never read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.dataset import SliceDataset
from pipeline.data.sets.selection import Selection
from pipeline.detection.detector import Detector
from pipeline.detection.scorer import Scorer
from pipeline.detection.stored_detector import load_detector, save_detector
from pipeline.errors import ArtefactError, ConfigError
from pipeline.methods.artefact import copy_tensors, method_from_spec, method_spec
from pipeline.methods.stored_model import save_model
from pipeline.stages.choose.aucp import AucpReport, Sides, check_aucp
from pipeline.stages.choose.grid_search import Unlabelled, guard, nobodys
from pipeline.stages.detect.calibrate import centred, units
from pipeline.stages.run.learning_sets import learning_sets
from pipeline.stages.run.load_slices import choose, dataset, lessons
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder
from pipeline.stages.run.score_slices import measured, usable
from pipeline.tracking.experiment import track
from pipeline.training.checkpoint import averaged, checkpoints
from pipeline.training.fitting import complete
from pipeline.training.state import Progress
from pipeline.types import RunRef


@dataclass(frozen=True, slots=True)
class CheckpointChoice:
    """Every checkpoint with its AUCp, the best of them, and what speaks against believing it.

    Attributes:
        rows: images_seen, aucp and the validation loss of each, oldest first.
        best: images seen by the one with the highest AUCp.
        aucp: its AUCp with its interval, the luck of so many, and the warnings.
    """

    rows: tuple[dict[str, Any], ...]
    best: int
    aucp: AucpReport

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"rows": list(self.rows), "best": self.best, "aucp": self.aucp.model_dump(mode="json")}


def choose_checkpoint(run: RunRef, settings: Settings, unlabelled: Unlabelled = "incoming") -> CheckpointChoice:
    """Score validate normals and unlabelled scans with every checkpoint of the last stage, under the run's own score.

    Writes `checkpoints/aucp.json` into the run folder. A run keeps as many as `training.keep_checkpoints` says.

    Args:
        run: a trained run.
        settings: the workspace.
        unlabelled: scans of patients without any label, or develop with its labels hidden.

    Raises:
        ArtefactError: fewer than two checkpoints are left, or one is damaged.
        EmptySelection, TooFewNormals: see `check_aucp` and `centred`.
    """
    folder = RunFolder.behind(run)
    config, found = folder.config(), _of_last_stage(folder)
    validate, incoming = _sides(config, settings, unlabelled)
    tried = []
    for path, _ in found:
        detector = centred(detector_at(folder, path, settings), config, settings)
        normal, other = (units(detector, _scores(detector, data), config) for data in (validate, incoming))
        side = np.arange(len(normal) + len(other)) >= len(normal)
        both = [*normal, *other]
        tried.append(Sides(np.array([unit.score for unit in both]), side, [unit.patient_id for unit in both]))
    report = check_aucp(tried, validate, incoming)
    rows = tuple(_row(progress, sides) for (_, progress), sides in zip(found, tried, strict=True))
    best = max(rows, key=lambda row: row["aucp"] if np.isfinite(row["aucp"]) else -1.0)
    choice = CheckpointChoice(rows, best["images_seen"], report)
    folder.write("checkpoints/aucp.json", choice.to_json())
    return choice


def _of_last_stage(folder: RunFolder) -> list[tuple[Path, Progress]]:
    found = {path: averaged(path)[0] for path in checkpoints(folder.training)}
    newest = {progress.images_seen: (path, progress) for path, progress in found.items()}  # a later one replaces
    last = max((progress.stage for progress in found.values()), default=0)
    kept = [pair for _, pair in sorted(newest.items()) if pair[1].stage == last]
    if len(kept) < 2:
        raise ArtefactError(
            f"The run {folder.run_id} kept {len(kept)} checkpoint(s) of its last stage, and a choice needs two. Train "
            "it with a larger training.keep_checkpoints."
        )
    return kept


def _sides(config: RunConfig, settings: Settings, unlabelled: Unlabelled) -> tuple[SliceDataset, SliceDataset]:
    with Catalogue.open(settings) as catalogue:
        normal = choose(catalogue, config, settings, sets=("validate",))
        if unlabelled == "develop":
            other: Selection = choose(catalogue, config, settings, sets=("develop",))
        else:
            other = nobodys(choose(catalogue, config, settings, labels=("unknown",)))
    guard([*normal.slices, *other.slices])
    return dataset(normal, config, settings, cache="disk"), dataset(other, config, settings, cache="disk")


def _scores(detector: Scorer, data: SliceDataset) -> list[Any]:
    return usable([item.score for item in measured(detector, data)], data)


def _row(progress: Progress, sides: Sides) -> dict[str, Any]:
    loss = progress.history[-1]["validation"].get("total") if progress.history else None
    return {"images_seen": progress.images_seen, "aucp": sides.aucp, "validation_loss": loss}


def detector_at(folder: RunFolder, path: Path, settings: Settings) -> Detector:
    """Return the run's detector with the averaged weights of a checkpoint, not calibrated."""
    config, detector = folder.config(), load_detector(folder.uncalibrated)
    if not isinstance(detector, Detector):
        raise ConfigError("An ensemble has no checkpoints; choose among those of its members.")
    method = method_from_spec(method_spec(detector.method)).eval()
    copy_tensors(method.state_dict(), averaged(path)[1], f"checkpoint {path.name}")
    with Catalogue.open(settings) as catalogue:
        sets = learning_sets(config, settings, catalogue)
    data = {name: lessons(chosen, config, settings) for name, chosen in sets.items()}
    complete(method, data["train"], data["validate"], config.training.batch_size)
    return replace(detector, model=replace(detector.model, method=method))


def adopt_checkpoint(run: RunRef, images_seen: int, settings: Settings) -> RunRef:
    """Return a run of its own with the weights of a checkpoint; it is not calibrated yet. Repeated, the same one.

    Raises:
        ArtefactError: the run kept no checkpoint of so many images.
    """
    source = RunFolder.behind(run)
    at = {progress.images_seen: path for path, progress in _of_last_stage(source)}
    if images_seen not in at:
        raise ArtefactError(f"The run {source.run_id} kept checkpoints at {', '.join(map(str, at))} images.")
    target = RunFolder(source.path.with_name(f"{source.run_id}-at-{images_seen}"))
    if not (target.path / "config.json").exists() or not target.is_trained():
        for name in ("data.json", "config.json"):
            target.write(name, source.read(name))
        _note(source, target, images_seen, settings)
        detector = detector_at(source, at[images_seen], settings)
        save_detector(target.uncalibrated, replace(detector, model=save_model(target.model, detector.model)))
    return target.read_trained()


def _note(source: RunFolder, target: RunFolder, images_seen: int, settings: Settings) -> None:
    """Enter the run in the catalogue and in MLflow."""
    config = source.config()
    with Catalogue.open(settings) as catalogue:
        summary = {**catalogue.run(source.run_id).summary, "images_seen": images_seen, "checkpoint_of": source.run_id}
        catalogue.start_run("train", config.data.route, settings.relative(target.path), run_id=target.run_id)
        with track(settings, config.data.route, config.name, system_metrics=False) as tracked:
            target.write("mlflow.json", {"run_id": tracked.run_id})
            target.write("origin.json", {"run": source.run_id, "images_seen": images_seen})
            tracked.config(config)
            tracked.tags({"run_id": target.run_id, "checkpoint_of": source.run_id})
        catalogue.finish_run(target.run_id, "done", summary)
