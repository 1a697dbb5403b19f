"""An ensemble through the stages: assembled, calibrated, registered, scored, measured; strangers refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipeline.config import Settings, load_config
from pipeline.detection.ensemble import Ensemble
from pipeline.detection.stored_detector import load_detector
from pipeline.errors import ArtefactError, ConfigError, TooFewNormals
from pipeline.stages.detect.calibrate import calibrate
from pipeline.stages.detect.evaluate import evaluate
from pipeline.stages.detect.rescore import rescore
from pipeline.stages.detect.score import score
from pipeline.stages.detect.train import train
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking.registry import list_registered
from pipeline.types import RunRef

pytestmark = pytest.mark.slow  # two runs, their ensemble, and a registered model


@pytest.fixture(scope="module")
def members(hospital: Any, evaluated_run: RunRef) -> tuple[str, str]:
    """Two calibrated runs: one autoencoder, another with another seed."""
    other = train(load_config(hospital.run_file, RunConfig, ["training.seed=1"]), hospital.settings)
    calibrate(other, hospital.settings, to_registry=False)
    return RunFolder.open(evaluated_run).run_id, RunFolder.open(other).run_id


def ensemble_config(hospital: Any, *members: str) -> RunConfig:
    listed = ", ".join(f"{{run: {name}}}" if "{" not in name else name for name in members)
    method = f"method={{name: ensemble, members: [{listed}]}}"
    return load_config(hospital.run_file, RunConfig, [method, "detection.transform=two_sided", "name=both"])


def test_it_goes_through_every_stage(hospital: Any, members: tuple[str, str]) -> None:
    settings: Settings = hospital.settings
    run = train(ensemble_config(hospital, *members), settings)
    assert train(ensemble_config(hospital, *members), settings) == run  # assembled once
    report = calibrate(run, settings)
    assert report.version and report.run.path in str(settings.runs / Path(report.run.path).name)
    detector = load_detector(RunFolder.open(run).detector, sha256=report.run.sha256)
    assert isinstance(detector, Ensemble)
    assert detector.two_sided is not None and detector.calibration is not None
    assert [member.origin.path for member in detector.members] == list(members)
    assert score(report.run, settings).studies == 8
    measured = evaluate(report.run, settings)
    assert {row.name for table in measured.tables for row in table.rows} >= {"ensemble", "brightness"}
    assert [row.name for row in measured.tables[0].rows if not row.control] == ["ensemble", *detector.member_names]
    alone, only_member = (RunFolder.find(settings, name).read("mlflow.json")["run_id"] for name in members)
    client = MlflowClient()
    row = next(row for row in measured.tables[0].rows if row.name == detector.member_names[1])
    logged = client.get_run(only_member).data
    assert logged.metrics["develop/auroc"] == row.metrics["AUROC"].value
    assert logged.tags["develop.headline"].startswith("As a member of the ensemble")
    assert "As a member" not in client.get_run(alone).data.tags.get("develop.headline", "")  # it has its own evaluation
    assert RunFolder.open(run).run_id in list_registered(settings, "phantom-mr")
    plain = rescore(run, detector.config.model_copy(update={"transform": "none"}), settings)
    assert load_detector(RunFolder.open(plain).uncalibrated).two_sided is None


def test_members_to_train_are_trained_once_calibrated_and_kept_out_of_the_registry(
    hospital: Any, members: tuple[str, str]
) -> None:
    small = "{train: {method: {name: knn_features, entries: 16}, detection: {residual: {median: 3}}}}"
    config = ensemble_config(hospital, members[0], small)
    run = train(config, hospital.settings)
    assert train(config, hospital.settings) == run
    first, second = load_detector(RunFolder.open(run).uncalibrated).members
    assert first.origin.path == members[0]
    assert second.detector.residual.median == 3 and second.detector.method.config.entries == 16
    trained = RunFolder.find(hospital.settings, second.origin.path)
    assert trained.read_config().data == config.data
    assert trained.read_calibrated().sha256 == second.origin.sha256
    assert trained.run_id not in list_registered(hospital.settings, "phantom-mr")


def test_a_member_of_another_hash_or_none_is_refused(hospital: Any, members: tuple[str, str]) -> None:
    wrong = f"{{run: {members[1]}, sha256: {'a' * 64}}}"
    with pytest.raises(ArtefactError, match="a{12}"):
        train(ensemble_config(hospital, members[0], wrong), hospital.settings)
    with pytest.raises(ArtefactError, match="0 runs match"):
        train(ensemble_config(hospital, members[0], "no-such-run"), hospital.settings)
    other = RunFolder.open(
        train(load_config(hospital.run_file, RunConfig, ["training.seed=2"]), hospital.settings)
    ).run_id
    with pytest.raises(ArtefactError, match=f"{other}.*calibrated"):
        train(ensemble_config(hospital, members[0], other), hospital.settings)


def test_other_images_are_refused(hospital: Any, members: tuple[str, str]) -> None:
    config = ensemble_config(hospital, *members)
    normaliser = config.data.normaliser.model_copy(update={"image_size": 64})
    larger = config.model_copy(update={"data": config.data.model_copy(update={"normaliser": normaliser})})
    with pytest.raises(ConfigError, match=r"data\.normaliser"):
        train(larger, hospital.settings)


def test_too_few_validate_normals_refuse_a_two_sided_score(trained: Any) -> None:
    """The small hospital's validate set has a handful of normals."""
    run = RunFolder.open(trained.report.run)
    detection = run.read_config().detection.model_copy(update={"transform": "two_sided"})
    asked = rescore(RunRef(str(run.path), ""), detection, trained.settings)
    with pytest.raises(TooFewNormals, match="two-sided score"):
        calibrate(asked, trained.settings, to_registry=False)
