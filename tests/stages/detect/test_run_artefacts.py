"""The artefacts of a run: one model, detectors that name it, and what happens to a run that lost some of its bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from mlflow import MlflowClient

from pipeline.config import load_config
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.detection import load_detector
from pipeline.detection.config import DetectionConfig
from pipeline.errors import ArtefactError, ConfigError
from pipeline.methods import load_model
from pipeline.stages.detect.calibrate import CalibrationReport, calibrate
from pipeline.stages.detect.model_report import read_model_report
from pipeline.stages.detect.rescore import rescore
from pipeline.stages.detect.score import find_detectors_to_run
from pipeline.stages.detect.train import train
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking.experiment import connect
from pipeline.tracking.registry import bare_model_name, list_routes_with_champions
from pipeline.types import RunRef

SHORT = ("training.images=64", "training.validate_every_images=64")
FILES = (
    "model/weights.safetensors",
    "model/model.json",
    "model/manifest.json",
    "uncalibrated/detector.json",
    "detector/detector.json",
    "calibration.json",
)


@pytest.fixture(scope="module")
def config(hospital: Any) -> RunConfig:
    return load_config(hospital.run_file, RunConfig, [*SHORT, "name=artefacts"])


@pytest.fixture(scope="module")
def report(hospital: Any, config: RunConfig) -> CalibrationReport:
    return calibrate(train(config, hospital.settings), hospital.settings, to_registry=False)


@pytest.fixture(scope="module")
def bare(hospital: Any) -> RunRef:
    """A run without `detection`."""
    return train(load_config(hospital.run_file, RunConfig, [*SHORT, "detection=null"]), hospital.settings)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.5, None], ids=["emptied", "halved", "gone"])
def test_a_damaged_run_is_finished_again_as_it_was(
    hospital: Any, config: RunConfig, report: CalibrationReport, name: str, share: float | None
) -> None:
    """As after a power cut: the files of a run are renamed into place, and one of them lost its bytes."""
    folder = RunFolder.open(report.run)
    before = {file: (folder.path / file).read_bytes() for file in FILES}
    file = folder.path / name
    file.unlink() if share is None else file.write_bytes(before[name][: int(share * len(before[name]))])
    again = calibrate(train(config, hospital.settings), hospital.settings, to_registry=False)
    assert again == report
    assert {file: (folder.path / file).read_bytes() for file in FILES} == before


def test_a_damaged_detector_is_never_scored_with(hospital: Any, report: CalibrationReport) -> None:
    file = RunFolder.open(report.run).model / "weights.safetensors"
    before = file.read_bytes()
    file.write_bytes(b"")
    try:
        with pytest.raises(ArtefactError):
            load_detector(report.run.path, sha256=report.run.sha256)
    finally:
        file.write_bytes(before)


def test_weights_exist_once_in_a_run_and_not_in_those_that_name_them(hospital: Any, report: CalibrationReport) -> None:
    detection = DetectionConfig.model_validate({"residual": {"kind": "l2"}})
    other = rescore(report.run, detection, hospital.settings)
    calibrated = calibrate(other, hospital.settings, to_registry=False)
    weights = [path for run in (report.run, other) for path in Path(run.path).rglob("weights.safetensors")]
    assert weights == [Path(report.run.path) / "model" / "weights.safetensors"]
    model = load_detector(calibrated.run.path).model
    assert model.origin.sha256 == load_model(report.run.path).origin.sha256
    assert rescore(report.run, detection, hospital.settings) == other


def test_a_run_without_detection_has_a_model_and_no_detector(hospital: Any, bare: RunRef) -> None:
    folder, settings = RunFolder.open(bare), hospital.settings
    assert bare.sha256 == load_model(folder.path).origin.sha256
    assert not folder.uncalibrated.exists()
    with Catalogue.open(settings) as catalogue:
        assert catalogue.run(folder.run_id).summary["model_sha256"] == bare.sha256
    with pytest.raises(ConfigError, match="detection"):
        calibrate(bare, settings)
    with pytest.raises(ConfigError, match="detection"):
        find_detectors_to_run(settings, run_id=folder.run_id)
    assert train(folder.read_config(), settings) == bare
    report = read_model_report(bare)
    assert report is not None and report.version == folder.read("mlflow.json")["model_version"]
    assert "detection" in report.sentence()


def test_a_run_whose_note_of_its_mlflow_run_is_lost_is_tracked_again(hospital: Any, bare: RunRef) -> None:
    folder = RunFolder.open(bare)
    before = folder.read("mlflow.json")
    (folder.path / "mlflow.json").write_text("")
    assert train(folder.read_config(), hospital.settings) == bare
    assert folder.read("mlflow.json").keys() == before.keys()
    folder.write("mlflow.json", before)


def test_its_model_is_registered_and_never_a_champion(hospital: Any, bare: RunRef, tmp_path: Path) -> None:
    settings, folder = hospital.settings, RunFolder.open(bare)
    connect(settings)
    name = bare_model_name(folder.read_config().data.route)
    every = MlflowClient().search_model_versions(f"name='{name}'")  # other files of tests train in this hospital, too
    (version,) = [one for one in every if one.tags["run"] == folder.run_id]
    assert version.tags == {"run": folder.run_id, "sha256": bare.sha256}
    assert folder.read("mlflow.json") == {"run_id": version.run_id, "model_version": str(version.version)}
    copied = mlflow.artifacts.download_artifacts(f"models:/{name}/{version.version}", dst_path=str(tmp_path))
    ours, theirs = load_model(copied, bare.sha256).method.state_dict(), load_model(bare.path).method.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert MlflowClient().get_registered_model(name).aliases == {}
    assert not [route for route in list_routes_with_champions(settings) if "model" in route]
    folder.write("mlflow.json", {"run_id": version.run_id})  # as if it had been stopped before this line
    assert train(folder.read_config(), settings) == bare
    assert folder.read("mlflow.json")["model_version"] == str(version.version)


def test_it_becomes_a_detector_without_another_training(hospital: Any, bare: RunRef) -> None:
    run = rescore(bare, DetectionConfig(), hospital.settings)
    ours, theirs = load_detector(run.path).model, load_model(bare.path)
    assert ours.origin.sha256 == theirs.origin.sha256
    pairs = zip(ours.method.state_dict().values(), theirs.method.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not RunFolder.open(run).model.exists()
