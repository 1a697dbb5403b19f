"""Stage `train`: train a model from a configuration, and wrap it in a detector that is not calibrated yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, cast

import pandas as pd

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.dataset import SliceDataset, fingerprint
from pipeline.data.images.normalise import Normaliser
from pipeline.data.sets.selection import Selection
from pipeline.data.sets.splits import assign_sets, check_disjoint
from pipeline.detection.detector import Detector
from pipeline.detection.ensemble_config import EnsembleConfig, MemberConfig
from pipeline.detection.stored_detector import save_detector
from pipeline.methods.base import Method
from pipeline.methods.stored_model import Model, save_model
from pipeline.stages.detect.build_ensemble import assemble
from pipeline.stages.detect.build_run_method import build_untrained, read_components
from pipeline.stages.detect.calibrate import calibrate
from pipeline.stages.detect.harvest import Source, harvest_findings, has_findings, read_findings
from pipeline.stages.run.budget import describe_cut, write_budget
from pipeline.stages.run.captioned_slices import read_findings_of
from pipeline.stages.run.learning_sets import (
    LEARNING,
    choose_beside,
    learning_sets,
    list_patients_of,
    make_run_folder,
    name_run_folder,
    name_target,
)
from pipeline.stages.run.load_slices import lessons, lessons_towards
from pipeline.stages.run.open_run import OpenFolder
from pipeline.stages.run.preflight import (
    Purpose,
    count_sets,
    refuse_nothing_new,
    refuse_uncalibrated,
    refuse_without_normals,
)
from pipeline.stages.run.route_gate import refuse_few_for_gate
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking.experiment import TrackedRun, track
from pipeline.tracking.registry import register_model
from pipeline.training.fitting import FitResult, TrainingRecord, fit
from pipeline.training.order import Images
from pipeline.training.precision import choose_precision, name_processor
from pipeline.training.processes import agree, leader_first, leads, wait_for_all
from pipeline.training.state import get_accelerator
from pipeline.training.with_findings import WithFindings
from pipeline.training.with_masks import WithMasks
from pipeline.training.with_words import WithWords
from pipeline.types import RunRef, SetName


def train(
    config: RunConfig,
    settings: Settings,
    again: bool = False,
    progress: bool = False,
    say: Callable[[str], None] = lambda text: None,
    purpose: Purpose = "flag",
) -> RunRef:
    """Train a model on the normals of the train set; of calibrate, develop, gate and test only the labels are counted.

    An ensemble is built from its members instead; those that are given by `train` are trained and calibrated first, and
    do not enter the registry. The run's id is its route and the hash of configuration and data: the same inputs give
    the same run, finished or not, unless `again` requests a new one. A run whose files are missing or damaged resumes
    from its last checkpoint.

    Args:
        config: configuration of model and data.
        settings: the workspace.
        again: train again even if the run exists.
        progress: show a progress bar.
        say: receives the sizes of the sets before training begins.
        purpose: "flag" refuses a training whose calibration could not give `flagging.alpha` afterwards, "rank" one that
            could not be calibrated at all; "model" needs no calibration.

    Raises:
        ArtefactError: a trained component, such as the codec of a latent model, is missing or another one.
        EmptySelection: there are no normal training scans on this route, or none to calibrate on, or a run with
            `unlabelled` has no unlabelled ones, or no validate normals.
        TooFewNormals: calibration needs more normals than there are (`pipeline.stages.run.preflight`).
        TrainingDiverged: NaN or infinity in a loss.
    """
    refuse_few_for_gate(config, settings)
    if isinstance(config.method, EnsembleConfig):
        whole = train_members(config, config.method, settings, progress, say, purpose)
        with leader_first(config.training):
            return assemble(whole, settings, again and leads())
    with leader_first(config.training), Catalogue.open(settings) as catalogue:
        assign_sets(catalogue, config.data.splits, list_patients_of(config, settings, catalogue))
        sets = learning_sets(config, settings, catalogue)
        check_disjoint({name: list(chosen.slices) for name, chosen in sets.items()})
        beside = choose_beside(config, settings, catalogue)
        unlabelled = beside.get("unlabelled")
        if not name_run_folder(config, sets, settings, again, beside)[0].is_trained():
            _check_normals(config, settings, catalogue, say, purpose)
        refuse_nothing_new(sets, unlabelled, config)
        folder = make_run_folder(config, sets, settings, again and leads(), beside)
    folder = RunFolder(agree(folder.path, config.training))
    if agree(folder.is_trained() and _is_tracked(folder, config), config.training):
        return folder.read_trained()
    source = None
    if unlabelled is not None and agree(not has_findings(folder), config.training):
        source = Source(train(config.build_teacher_run(), settings, progress=progress, purpose="model"), unlabelled)
    with Catalogue.open(settings) as catalogue:
        _train_in(OpenFolder(folder, config, catalogue, settings), sets, beside, source, progress)
        wait_for_all(config.training)
    if cut := describe_cut(folder):
        say(cut)
    return folder.read_trained()


def train_members(
    config: RunConfig,
    method: EnsembleConfig,
    settings: Settings,
    progress: bool = False,
    say: Callable[[str], None] = lambda text: None,
    purpose: Purpose = "flag",
) -> RunConfig:
    """Train and calibrate the members that are not runs yet; return the configuration with their runs.

    Raises:
        ArtefactError, EmptySelection, TrainingDiverged: see `train`; TooFewNormals: see `calibrate`.
    """
    members = []
    for member in method.members:
        if member.train is not None:
            run = train(config.build_member_run(member.train), settings, False, progress, say, purpose)
            with leader_first(config.training):
                run = calibrate(run, settings, to_registry=False).run
            member = MemberConfig(run=RunFolder.open(run).run_id, sha256=run.sha256, weight=member.weight)
        members.append(member)
    return config.model_copy(update={"method": method.model_copy(update={"members": tuple(members)})})


def _check_normals(
    config: RunConfig, settings: Settings, catalogue: Catalogue, say: Callable[[str], None], purpose: Purpose
) -> None:
    """Say how large the sets are, and refuse a training that could not be finished or calibrated."""
    counts = count_sets(config, settings, catalogue)
    refuse_without_normals(counts)
    say(counts.lines())
    refuse_uncalibrated(counts, config, purpose)


def _train_in(
    opened: OpenFolder,
    sets: dict[SetName, Selection],
    beside: Mapping[str, Selection],
    source: Source | None,
    progress: bool,
) -> None:
    if not leads():
        _help_in(opened, sets, beside)
        return
    folder, catalogue, settings = opened.folder, opened.catalogue, opened.settings
    catalogue.start_run("train", opened.route, settings.relative(folder.path), run_id=folder.run_id)
    try:
        about = f"Training of `{opened.config.method.name}` on normal scans of {opened.route}: run `{folder.run_id}`."
        earlier = folder.read_tracked().get("run_id")
        with track(settings, opened.route, opened.config.name, earlier, about=about) as tracked:
            folder.write("mlflow.json", {"run_id": tracked.run_id})
            components = read_components(opened.config, settings)
            data = _read_lessons(opened, sets, beside, source, tracked)
            wait_for_all(opened.config.training)
            result = _fit(opened, data, build_untrained(opened.config, components), tracked, progress)
            _log(tracked, opened, result)
            write_budget(folder, opened.config.training, result)
            tracked.log_tags({"cut_short": describe_cut(folder) or "no"})
            sha256 = _save(opened, result, components)
            tracked.log_tags({"model_sha256": sha256})
            if opened.config.detection is None:
                _register(opened, sha256, tracked)
    except BaseException:
        catalogue.finish_run(folder.run_id, "failed", {})
        raise
    seconds = {"process_seconds": result.process_seconds, "stage_seconds": result.stage_seconds}
    summary = {"images_seen": result.images_seen, "stopped": result.stopped, "model_sha256": sha256, **seconds}
    summary |= {"cut_short": cut} if (cut := describe_cut(folder)) else {}
    catalogue.finish_run(folder.run_id, "done", summary)


def _help_in(opened: OpenFolder, sets: dict[SetName, Selection], beside: Mapping[str, Selection]) -> None:
    """Share the steps of the leader's training, and write nothing."""
    wait_for_all(opened.config.training)  # for the lessons that the leader prepares
    data = _read_lessons(opened, sets, beside, None, None)
    _fit(opened, data, build_untrained(opened.config, read_components(opened.config, opened.settings)), None, False)


def _register(opened: OpenFolder, sha256: str, tracked: TrackedRun) -> None:
    """Register the model, and record its version in the run folder."""
    folder = opened.folder
    version = register_model(opened.settings, folder.model, sha256, opened.route, RunRef(str(folder.path), sha256))
    folder.write("mlflow.json", {"run_id": tracked.run_id, "model_version": version})


def _is_tracked(folder: RunFolder, config: RunConfig) -> bool:
    """Return whether MLflow has the run, and its model too unless it has a detector, which calibration registers."""
    return ("run_id" if config.detection is not None else "model_version") in folder.read_tracked()


def _read_lessons(
    opened: OpenFolder,
    sets: dict[SetName, Selection],
    beside: Mapping[str, Selection],
    source: Source | None,
    tracked: TrackedRun | None,
) -> dict[SetName, Images]:
    """Return the training data of each set; with findings to paste, harvested first if there is a source."""
    data: dict[SetName, Images] = {}
    for name, chosen in sets.items():
        if opened.config.towards is None:
            data[name] = lessons(chosen, opened.config, opened.settings)
        else:
            other, needed = beside[name_target(name)], name == "train"
            data[name] = lessons_towards(chosen, other, opened.config, opened.settings, needed)
        if tracked is not None:
            tracked.log_data(fingerprint(chosen.slices), LEARNING[name])
    if opened.config.masks is not None:
        return {**data, "train": WithMasks(cast(SliceDataset, data["train"]))}
    if opened.config.captions is not None:
        return {**data, "train": WithWords(data["train"], read_findings_of(sets["train"], opened.settings))}
    if opened.config.unlabelled is None:
        return data
    if source is not None:
        harvest_findings(opened, source, opened.config.unlabelled.harvest, len(data["train"]))
    findings, teacher_sha256 = read_findings(opened.folder)
    if tracked is not None:
        tracked.log_metrics({"findings": len(findings)})
        tracked.log_tags({"teacher_sha256": teacher_sha256})
    return {**data, "train": WithFindings(data["train"], findings)}


def _fit(
    opened: OpenFolder, data: dict[SetName, Images], method: Method, tracked: TrackedRun | None, progress: bool
) -> FitResult:
    def log(record: TrainingRecord) -> None:
        if tracked is not None:
            tracked.log_terms([(record.images_seen, _terms(record))])

    return fit(
        method,
        data["train"],
        data["validate"] if len(data["validate"]) else None,
        opened.config.training,
        opened.folder.training,
        on_record=log,
        progress=progress,
    )


def _terms(record: TrainingRecord) -> dict[str, float]:
    terms = {f"train/{name}": value for name, value in record.training.items()}
    terms |= {f"validate/{name}": value for name, value in record.validation.items()}
    return terms | {"images_per_second": record.images_per_second, "process_seconds": record.process_seconds}


def _log(tracked: TrackedRun, opened: OpenFolder, result: FitResult) -> None:
    tracked.log_config(opened.config)
    tracked.log_table(pd.json_normalize([asdict(record) for record in result.history]), "history")
    tracked.log_metrics({"images_seen": result.images_seen, "training_seconds": result.process_seconds})
    parameters = sum(p.numel() for p in result.method.parameters())
    training = opened.config.training
    device = get_accelerator(training.device == "cpu").device.type
    tracked.log_tags(
        {
            "run_id": opened.folder.run_id,
            "stopped": result.stopped,
            "parameters": str(parameters),
            "precision": choose_precision(training.precision, device),
            "processor": name_processor(device),
        }
    )


def _save(opened: OpenFolder, result: FitResult, components: Mapping[str, Model]) -> str:
    """Save the model and, if the run detects, its detector; return the model's SHA-256."""
    folder, config, data = opened.folder, opened.config, opened.config.data
    model = save_model(folder.model, Model(result.method, Normaliser(data.normaliser), data.volumes, components))
    if config.detection is not None:
        save_detector(folder.uncalibrated, Detector(model, config.detection, data.route, config.training.seed))
    return cast(Any, model.origin).sha256
