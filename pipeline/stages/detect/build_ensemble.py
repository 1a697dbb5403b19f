"""Stage `assemble`: build an ensemble of trained runs, whose scores are put on one scale by validate normals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.dataset import SliceDataset
from pipeline.data.images.normalise import Normaliser
from pipeline.data.sets.selection import Selection
from pipeline.detection.detector import Detector
from pipeline.detection.detector_file import DETECTOR
from pipeline.detection.ensemble import Ensemble, refuse_strangers, z_score_members
from pipeline.detection.ensemble_config import EnsembleConfig, MemberConfig
from pipeline.detection.slices import content_id, slice_batches
from pipeline.detection.stored_detector import load_detector, save_detector
from pipeline.errors import ArtefactError, ConfigError
from pipeline.methods.stored_model import images_of
from pipeline.stages.run.learning_sets import learning_sets, make_run_folder
from pipeline.stages.run.open_run import OpenFolder
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking.experiment import track
from pipeline.types import Batch, RunRef


def assemble(config: RunConfig, settings: Settings, again: bool = False) -> RunRef:
    """Build an ensemble of the calibrated runs in `config.method`; like a trained run, it is not calibrated yet.

    Reads the validate normals only, for the members' z-scores. Its detector names the members' models by SHA-256.

    Args:
        config: a run whose method is an ensemble.
        settings: the workspace.
        again: build it again even if the run exists.

    Raises:
        ArtefactError: a member is missing, not calibrated, or does not have the given SHA-256.
        ConfigError: members have other routes or images, or one of them is an ensemble.
        TooFewNormals: there are too few validate normals for z-scores.
    """
    with Catalogue.open(settings) as catalogue:
        sets = learning_sets(config, settings, catalogue)
        folder = make_run_folder(config, sets, settings, again)
        if not (folder.is_trained() and folder.read_tracked()):
            catalogue.start_run("train", config.data.route, settings.relative(folder.path), run_id=folder.run_id)
            try:
                summary = _assemble_in(OpenFolder(folder, config, catalogue, settings), sets["validate"])
            except BaseException:
                catalogue.finish_run(folder.run_id, "failed", {})
                raise
            catalogue.finish_run(folder.run_id, "done", summary)
    return folder.read_trained()


def _assemble_in(opened: OpenFolder, validate: Selection) -> dict[str, Any]:
    """Write the detector; return the members and the total cost of their trainings."""
    folder, config, settings = opened.folder, opened.config, opened.settings
    detection, parts = config.require_detection(), [_member(one, config, settings) for one in require_members(config)]
    images = images_of(Normaliser(config.data.normaliser), config.data.volumes)
    refuse_strangers([detector for detector, _ in parts], config.data.route, images)
    _refuse_mixed([detector for detector, _ in parts], config)
    data = opened.dataset(validate, cache="disk")
    equal = z_score_members(parts, _batches(data, detection.batch_size))
    members = tuple(
        replace(one, weight=entry.weight) for one, entry in zip(equal, require_members(config), strict=True)
    )
    ensemble = Ensemble(members, detection, config.data.route, config.training.seed)
    names = [origin.path for _, origin in parts]
    about = f"Ensemble of {len(members)} trained detectors on {config.data.route}: run `{folder.run_id}`."
    with track(settings, config.data.route, config.name, system_metrics=False, about=about) as tracked:
        folder.write("mlflow.json", {"run_id": tracked.run_id})
        tracked.log_config(config)
        tracked.log_tags({"run_id": folder.run_id, "members": ", ".join(names)})
    save_detector(folder.uncalibrated, ensemble)
    costs = [opened.catalogue.run(name).summary for name in names]
    totals = {key: sum(cost.get(key) or 0 for cost in costs) for key in ("images_seen", "process_seconds")}
    cut = [name for name in names if opened.catalogue.run(name).summary.get("cut_short")]
    return {"members": names, **totals} | ({"cut_short": f"Cut short by their caps: {', '.join(cut)}."} if cut else {})


def require_members(config: RunConfig) -> tuple[MemberConfig, ...]:
    """Return the members in a run's configuration (ConfigError if its method is not an ensemble)."""
    if not isinstance(config.method, EnsembleConfig):
        raise ConfigError(f"The method {config.method.name} is not an ensemble, so it has no members.")
    return config.method.members


def _member(entry: MemberConfig, config: RunConfig, settings: Settings) -> tuple[Detector, RunRef]:
    if entry.run is None:
        raise ConfigError("A member of the ensemble is not trained yet. Build the ensemble with nightread train CONFIG")
    folder = RunFolder.find(settings, entry.run)
    if folder.read_config().data.fold != config.data.fold:
        raise ConfigError(
            f"The member {folder.run_id} holds out other patients (data.fold) than its ensemble, which would be "
            "evaluated on patients that the member learned from. Use members of one fold, and give the ensemble the "
            "same fold."
        )
    if not (folder.detector / DETECTOR).exists():
        raise ArtefactError(f"The member {folder.run_id} is not calibrated. Finish it with nightread train CONFIG")
    calibrated = folder.read_calibrated()
    if entry.sha256 is not None and calibrated.sha256 != entry.sha256:
        raise ArtefactError(
            f"The member {folder.run_id} has SHA-256 {calibrated.sha256[:12]}…, but {entry.sha256[:12]}… was "
            "requested. It was trained or calibrated again. Set its current SHA-256, or restore the old run."
        )
    detector = load_detector(folder.detector, sha256=calibrated.sha256)
    if not isinstance(detector, Detector):
        raise ConfigError(f"The member {folder.run_id} is itself an ensemble. Use its members instead.")
    return detector, RunRef(folder.run_id, calibrated.sha256)


def _refuse_mixed(detectors: Sequence[Detector], config: RunConfig) -> None:
    connects = config.require_detection().residual.connects
    if (connects or any(detector.whole for detector in detectors)) != config.whole:
        raise ConfigError(
            "Members whose maps depend on adjacent slices need whole series, and so does their ensemble: set "
            "detection.residual.adjacent above 0 in its run as well, or to 0 if no member reads whole series."
        )


def _batches(data: SliceDataset, batch_size: int) -> Iterator[tuple[Batch, list[int]]]:
    """Yield slices, or whole series, with the same randomness as in scoring, and the rows that count."""
    if data.whole:
        for stack in data.stacks():
            yield stack.batch, list(stack.selected)
        return
    for batch in slice_batches(data, batch_size):
        yield replace(batch, ids=tuple(content_id(data, item) for item in batch.ids)), list(range(len(batch.ids)))
