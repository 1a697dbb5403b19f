"""Stage `rescore`: give a trained model another score. Nothing is trained, but the result is a new run."""

from __future__ import annotations

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.detection.config import DetectionConfig
from pipeline.detection.detector import Detector
from pipeline.detection.scorer import Scorer
from pipeline.detection.stored_detector import load_detector, save_detector
from pipeline.methods.stored_model import load_model
from pipeline.stages.run.learning_sets import learning_sets, make_run_folder
from pipeline.stages.run.open_run import OpenFolder
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking.experiment import track
from pipeline.types import RunRef


def rescore(run: RunRef, detection: DetectionConfig, settings: Settings) -> RunRef:
    """Return a run that uses the models of `run` with another detection; it is not calibrated yet.

    Its id is the one that `train` gives to that configuration on the current data, so that `train` reuses it. The
    original run does not change. Further calls return the same run.

    Args:
        run: a trained run; it may have no `detection` of its own.
        detection: detection configuration of the new run.
        settings: the workspace.

    Raises:
        ArtefactError: the run folder is missing or altered.
    """
    source = RunFolder.open(run)
    if source.read_config().detection == detection:
        return source.read_trained()
    config = source.read_config().model_copy(update={"detection": detection})
    with Catalogue.open(settings) as catalogue:
        target = make_run_folder(config, learning_sets(config, settings, catalogue), settings)
        if not target.is_trained():
            _name_models(source, OpenFolder(target, target.read_config(), catalogue, settings), detection)
    return target.read_trained()


def _name_models(source: RunFolder, opened: OpenFolder, detection: DetectionConfig) -> None:
    target, catalogue, settings = opened.folder, opened.catalogue, opened.settings
    origin = source.read_trained()
    catalogue.start_run("train", opened.route, settings.relative(target.path), run_id=target.run_id)
    try:
        about = f"The model of `{source.run_id}` under another detection: run `{target.run_id}`."
        with track(settings, opened.route, opened.config.name, system_metrics=False, about=about) as tracked:
            target.write("mlflow.json", {"run_id": tracked.run_id})
            target.write("origin.json", {"run": source.run_id, "sha256": origin.sha256})
            tracked.log_config(opened.config)
            tracked.log_tags({"run_id": target.run_id, "rescored_from": source.run_id})
        save_detector(target.uncalibrated, _under(source, detection))
    except BaseException:
        catalogue.finish_run(target.run_id, "failed", {})
        raise
    summary = {**catalogue.run(source.run_id).summary, "rescored_from": source.run_id}
    catalogue.finish_run(target.run_id, "done", summary)


def _under(source: RunFolder, detection: DetectionConfig) -> Scorer:
    config = source.read_config()
    if config.detection is None:
        return Detector(load_model(source.model), detection, config.data.route, config.training.seed)
    return load_detector(source.uncalibrated).under(detection)
