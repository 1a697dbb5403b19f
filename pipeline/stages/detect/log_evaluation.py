"""Record of an evaluation in MLflow: a run of its own, and its headline on the training run and the model version."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.detection.ensemble_config import EnsembleConfig
from pipeline.evaluation.headline import headline_metrics, headline_sentence, member_metrics
from pipeline.evaluation.report import EvaluationReport
from pipeline.stages.detect.evaluation_key import hash_evaluation_inputs
from pipeline.stages.run.budget import list_cuts
from pipeline.stages.run.open_run import OpenRun
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking.experiment import TrackedRun, log_headline, track
from pipeline.tracking.registry_notes import describe_version


@contextmanager
def track_evaluation(opened: OpenRun, report: EvaluationReport) -> Iterator[TrackedRun]:
    """Open the evaluation's run; an evaluation of develop with the same inputs goes into the run that it has.

    Every opening of the test set is a run of its own.
    """
    folder, file = opened.folder, f"evaluation/{report.set_name}/mlflow.json"
    inputs = hash_evaluation_inputs(opened.ref, opened.settings) if report.set_name == "develop" else ""
    earlier = folder.read(file) if inputs and (folder.path / file).exists() else {}
    repeated = earlier.get("run_id") if earlier.get("inputs") == inputs else None
    training = folder.read("mlflow.json")["run_id"]
    name = f"evaluate {report.set_name}"
    about = f"Evaluation of {folder.run_id}. {headline_sentence(report)} Charts and tables: `report.html` in Artifacts."
    with track(opened.settings, opened.route, name, repeated, parent=training, about=about) as tracked:
        yield tracked
    folder.write(file, {"run_id": tracked.run_id, "inputs": inputs})


def publish_headline(opened: OpenRun, report: EvaluationReport) -> None:
    """Put the headline on the training run and, if the detector is registered, on its version."""
    folder, settings = opened.folder, opened.settings
    seconds = opened.catalogue.run(folder.run_id).summary.get("process_seconds")
    values = headline_metrics(report) | ({} if seconds is None else {"training_seconds": float(seconds)})
    sentence = headline_sentence(report)
    log_headline(settings, folder.read("mlflow.json")["run_id"], values, {f"{report.set_name}.headline": sentence})
    calibration = folder.read("calibration.json")
    if not calibration["version"] or calibration["sha256"] != opened.ref.sha256:
        return
    tags = {name.replace("/", "."): f"{value:.4g}" for name, value in values.items()}
    describe_version(settings, opened.route, calibration["version"], about_version(opened), tags)


def publish_members(opened: OpenRun, report: EvaluationReport) -> None:
    """Put the AUROC of each member of an ensemble, measured beside the ensemble's, on the member's training run.

    A member that has been evaluated by itself keeps its own.
    """
    method, settings = opened.config.method, opened.settings
    if not isinstance(method, EnsembleConfig):
        return
    for name, entry in zip(opened.detector.member_names, method.members, strict=True):
        values = member_metrics(report, name)
        if entry.run is None or not values:
            continue
        folder = RunFolder.find(settings, entry.run)
        if (folder.path / f"evaluation/{report.set_name}/report.json").exists():
            continue
        value = values[f"{report.set_name}/auroc"]
        sentence = f"As a member of the ensemble {opened.folder.run_id}: AUROC {value:.3f}."
        log_headline(settings, folder.read("mlflow.json")["run_id"], values, {f"{report.set_name}.headline": sentence})


def about_version(opened: OpenRun) -> str:
    """Return the description of a registered version: its training, its calibration, its evaluations."""
    folder, calibration = opened.folder, opened.detector.calibration
    lines = [f"`{opened.config.method.name}` on {opened.route}, trained by the run `{folder.run_id}`."]
    if calibration is not None:
        lines.append(
            f"Calibrated on {calibration.n} normal units of {calibration.patients} patients ({calibration.guarantee})."
        )
    for set_name in ("develop", "test"):
        if (folder.path / (file := f"evaluation/{set_name}/report.json")).exists():
            sentence = headline_sentence(EvaluationReport.model_validate(folder.read(file)))
            lines.append(f"{sentence} Charts: `report.html` in the Artifacts of its run `evaluate {set_name}`.")
    lines += list_cuts(folder)
    return "\n\n".join([*lines, "Research, not for diagnosis."])
