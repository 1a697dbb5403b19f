"""The records that an auditor opens first: kind, descriptions, headline numbers, data and model of each run."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from mlflow import MlflowClient

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.stages.detect.evaluate import evaluate
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking.experiment import KIND, NOTE, SHARED_VIEW, connect, find_page
from pipeline.tracking.registry import model_name

ROUTE = "phantom-mr"


@pytest.fixture(scope="module")
def audited(scored: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A copy of the workspace with a trained and scored run, evaluated here; MLflow is pointed at it."""
    settings = Settings(workspace=tmp_path_factory.mktemp("audited") / "workspace")
    shutil.copytree(scored.settings.workspace, settings.workspace)
    with Catalogue.open(settings) as catalogue:
        run_id = catalogue.list_runs("train")[0].run_id
    run = RunFolder.find(settings, run_id).read_calibrated()
    report = evaluate(run, settings)
    connect(settings)
    return settings, run, report


def training_run(run: Any) -> Any:
    return MlflowClient().get_run(RunFolder.open(run).read("mlflow.json")["run_id"])


def children(run: Any, name: str) -> list[Any]:
    client, parent = MlflowClient(), training_run(run)
    query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    runs = client.search_runs([parent.info.experiment_id], query)
    return [child for child in runs if child.info.run_name.startswith(name)]


def test_the_experiment_opens_in_the_view_of_model_development(audited: Any) -> None:
    experiment = MlflowClient().get_experiment_by_name(ROUTE)
    assert experiment.tags[KIND] == "custom_model_development"
    assert ROUTE in experiment.tags[NOTE]
    MlflowClient().set_experiment_tag(experiment.experiment_id, NOTE, "written by a person")
    settings, run, _ = audited
    evaluate(run, settings)
    assert MlflowClient().get_experiment(experiment.experiment_id).tags[NOTE] == "written by a person"


def test_the_training_run_carries_the_headline(audited: Any) -> None:
    _, run, report = audited
    stored = training_run(run)
    auroc = report.tables[0].rows[0].metrics["AUROC"]
    metrics = stored.data.metrics
    assert metrics["develop/auroc"] == pytest.approx(auroc.value)
    assert metrics["develop/auroc_low"] == pytest.approx(auroc.low)
    controls = [row.metrics["AUROC"].value for row in report.tables[0].rows if row.control]
    assert metrics["develop/best_control_auroc"] == pytest.approx(max(controls))
    assert metrics["develop/false_positive_rate"] == pytest.approx(report.operating_points[0].realised.rate.value)
    assert metrics["develop/target_false_positive_rate"] == 0.2
    assert metrics["training_seconds"] > 0
    assert stored.info.status == "FINISHED" and stored.data.tags[NOTE]


def test_the_list_of_runs_has_an_address_that_shows_the_headline(audited: Any) -> None:
    settings, run, _ = audited
    page = find_page(settings)
    experiment = MlflowClient().get_experiment_by_name(ROUTE)
    assert f"#/experiments/{experiment.experiment_id}/runs?" in page and "workflowType=machine_learning" in page
    assert SHARED_VIEW.endswith(page.partition("viewStateShareKey=")[2])
    columns = json.loads(experiment.tags[SHARED_VIEW])["selectedColumns"]
    metrics = {name.split("`")[1] for name in columns if name.startswith("metrics.")}
    assert len(metrics) == 6 and metrics <= set(training_run(run).data.metrics)


def test_so_does_the_version_and_everything_registered_is_described(audited: Any) -> None:
    settings, run, report = audited
    name = model_name(ROUTE)
    version = MlflowClient().get_model_version_by_alias(name, "champion")
    auroc = report.tables[0].rows[0].metrics["AUROC"]
    assert version.tags["develop.auroc"] == f"{auroc.value:.4g}"
    assert version.tags["sha256"] == run.sha256 and float(version.tags["training_seconds"]) > 0
    assert auroc.text() in version.description and "diagnosis" in version.description
    assert ROUTE in MlflowClient().get_registered_model(name).description


def test_a_scoring_run_names_data_configuration_and_model(audited: Any, scored: Any) -> None:
    _, run, _ = audited
    (stored,) = children(run, "score")
    tags = stored.data.tags
    assert (tags["detector_sha256"], tags["score_run_id"]) == (run.sha256, scored.run_id)
    assert tags["model_sha256"] == training_run(run).data.tags["model_sha256"]
    assert stored.data.params["method.name"] == "ae"
    (data,) = stored.inputs.dataset_inputs
    assert data.dataset.name == "scoring" and len(json.loads(data.dataset.source)["tags"]["sha256"]) == 64


def test_the_same_evaluation_again_adds_no_run(audited: Any) -> None:
    settings, run, _ = audited
    before = children(run, "evaluate develop")
    evaluate(run, settings)
    assert [one.info.run_id for one in children(run, "evaluate develop")] == [before[0].info.run_id]
    assert len(before) == 1
