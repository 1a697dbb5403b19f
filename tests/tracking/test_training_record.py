"""The records that training and calibration leave in MLflow, and that they contain no identity."""

from __future__ import annotations

import json
from typing import Any

import mlflow
import pytest
import torch
from mlflow import MlflowClient

from pipeline.stages.run.run_folder import RunFolder


@pytest.fixture(scope="module")
def run(tracked: Any) -> Any:
    """The tracked run of the training."""
    folder = RunFolder.open(tracked.report.run)
    return MlflowClient().get_run(folder.read("mlflow.json")["run_id"])


def test_the_resolved_configuration_is_recorded(run: Any) -> None:
    assert run.data.params["method.name"] == "ae"
    assert run.data.params["training.images"] == "200"
    assert run.data.params["training.patience"] == "10"  # a default: resolved, not only what the file says
    config = json.loads(mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/config.json"))
    assert config["detection"]["flagging"]["alpha"] == 0.2


def test_its_data_are_three_disjoint_datasets(run: Any) -> None:
    logged = {item.dataset.name: item.dataset.digest for item in run.inputs.dataset_inputs}
    assert set(logged) == {"training", "validation", "calibration"}
    assert len(set(logged.values())) == 3
    training = json.loads(mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/data/training.json"))
    assert training["labels"].keys() == {"normal"}
    assert training["sha256"].startswith(logged["training"])


def test_terms_are_logged_by_images_seen(run: Any) -> None:
    steps = [m.step for m in MlflowClient().get_metric_history(run.info.run_id, "train/total")]
    assert steps == sorted(steps)
    assert len(steps) >= 2
    assert steps[-1] >= 200
    assert "validate/total" in run.data.metrics


def test_git_and_versions_are_tags(run: Any) -> None:
    assert run.data.tags["git.commit"]
    assert run.data.tags["version.torch"].startswith("2.")
    assert run.data.tags["mlflow.source.name"]


def test_precision_and_processor_are_tags(run: Any) -> None:
    assert run.data.tags["precision"] == "fp32"
    assert run.data.tags["processor"] == torch.cpu.get_capabilities()["cpu_name"]


def test_nothing_that_mlflow_wrote_names_anybody(tracked: Any, phantom_night: Any) -> None:
    planted, looked_at = phantom_night.planted.encode().lower(), 0
    for file in (tracked.settings.workspace / "mlflow").rglob("*"):
        if file.is_file():
            looked_at += 1
            assert planted not in file.read_bytes().lower(), file.name
            assert planted.decode() not in file.name.lower()
    assert looked_at > 20
    # The control: the crosswalk, which is there to hold identities, does hold them.
    crosswalk = tracked.settings.workspace / "identity"
    assert any(planted in file.read_bytes().lower() for file in crosswalk.iterdir())
