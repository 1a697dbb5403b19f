"""The records of a run in MLflow: configuration, data, code, terms, tables, figures, the machine's load."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipeline.config import Config, Settings
from pipeline.errors import ConfigError
from pipeline.tracking import experiment
from pipeline.tracking.begin_alone import LOCK
from pipeline.tracking.experiment import connect, track
from pipeline.tracking.software import git_state, versions


class _Inner(Config):
    rate: float = 0.1
    sizes: tuple[int, ...] = (1, 2)


class _Outer(Config):
    name: str = "tiny"
    inner: _Inner = _Inner()


def artifacts(run_id: str, folder: str = "") -> set[str]:
    return {item.path for item in MlflowClient().list_artifacts(run_id, folder)}


def test_a_run_keeps_everything(tracked: Any) -> None:
    with track(tracked.settings, "unit", "all of it", system_metrics=False) as run:
        run.log_config(_Outer())
        run.log_data({"sha256": "ab" * 32, "patients": 3}, "training")
        run.log_terms([(10, {"train/total": 2.0}), (20, {"train/total": 1.0, "train/kl": 0.5})])
        run.log_metrics({"auroc": 0.75})
        run.log_tags({"run_id": "r1"})
        run.log_table(pd.DataFrame({"fpr": [0.0, 1.0], "tpr": [0.0, 1.0]}), "roc")
        run.log_figure(Figure(), "roc")
        run.log_text("fine", "notes/report.md")
    stored = MlflowClient().get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == "all of it"
    assert stored.data.params == {"name": "tiny", "inner.rate": "0.1", "inner.sizes": "[1, 2]"}
    assert json.loads(mlflow.artifacts.load_text(f"runs:/{run.run_id}/config.json"))["inner"] == {
        "rate": 0.1,
        "sizes": [1, 2],
    }
    history = [(m.step, m.value) for m in MlflowClient().get_metric_history(run.run_id, "train/total")]
    assert sorted(history) == [(10, 2.0), (20, 1.0)]
    assert stored.data.metrics["auroc"] == 0.75
    assert artifacts(run.run_id, "tables") == {"tables/roc.csv"}
    assert artifacts(run.run_id, "figures") == {"figures/roc.png"}
    assert mlflow.artifacts.load_text(f"runs:/{run.run_id}/tables/roc.csv").splitlines()[0] == "fpr,tpr"
    assert mlflow.artifacts.load_text(f"runs:/{run.run_id}/notes/report.md") == "fine"


def test_the_data_are_a_logged_dataset_with_the_fingerprint_as_digest(tracked: Any) -> None:
    with track(tracked.settings, "unit", "data", system_metrics=False) as run:
        run.log_data({"sha256": "cd" * 32, "patients": 3}, "training")
    logged = MlflowClient().get_run(run.run_id).inputs.dataset_inputs[0]
    assert logged.dataset.name == "training"
    assert ("cd" * 32).startswith(logged.dataset.digest)
    assert [tag.value for tag in logged.tags] == ["training"]
    assert json.loads(logged.dataset.source)["tags"]["sha256"] == "cd" * 32
    assert json.loads(mlflow.artifacts.load_text(f"runs:/{run.run_id}/data/training.json"))["patients"] == 3


def test_a_raising_block_fails_the_run_and_a_reopened_one_goes_on(tracked: Any) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        track(tracked.settings, "unit", "broken", system_metrics=False) as run,
    ):
        raise ZeroDivisionError
    assert MlflowClient().get_run(run.run_id).info.status == "FAILED"
    with track(tracked.settings, "unit", "ignored", run_id=run.run_id, system_metrics=False) as again:
        again.log_metrics({"late": 1.0})
    stored = MlflowClient().get_run(run.run_id)
    assert (again.run_id, stored.info.status, stored.info.run_name) == (run.run_id, "FINISHED", "broken")
    assert stored.data.metrics["late"] == 1.0


def test_a_child_run_is_shown_beneath_its_parent(tracked: Any) -> None:
    with track(tracked.settings, "unit", "parent", system_metrics=False) as parent:
        pass
    with track(tracked.settings, "unit", "child", parent=parent.run_id, system_metrics=False) as child:
        pass
    assert MlflowClient().get_run(child.run_id).data.tags["mlflow.parentRunId"] == parent.run_id


def test_system_metrics_are_logged(tracked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "SAMPLE_SECONDS", 0.1)
    monkeypatch.setattr(experiment, "SAMPLES", 1)
    with track(tracked.settings, "unit", "load") as run:
        deadline = time.monotonic() + 240
        while not (metrics := system_metrics(run.run_id)) and time.monotonic() < deadline:
            time.sleep(0.2)
    metrics = system_metrics(run.run_id)
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= metrics


def system_metrics(run_id: str) -> set[str]:
    return {name for name in MlflowClient().get_run(run_id).data.metrics if name.startswith("system/")}


def test_git_state_is_ours_or_none(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    head = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert git_state()["git.commit"] == (head or "not a checkout")
    # An environment within somebody else's repository: its commit is not ours.
    for command in (
        ["init", "-q"],
        ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "x", "--allow-empty"],
    ):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    assert git_state(tmp_path) == {"git.commit": "not a checkout", "git.dirty": "unknown"}


def test_versions_name_what_results_depend_on() -> None:
    assert versions()["version.torch"].startswith("2.")
    assert versions()["version.nightread"]


def test_a_store_that_cannot_be_opened_is_a_configuration_error(tmp_path: Path, tracked: Any) -> None:
    (tmp_path / "file").write_text("")
    broken = Settings(workspace=tmp_path, mlflow_uri=f"sqlite:///{tmp_path}/file/mlflow.db")
    with pytest.raises(ConfigError, match="NIGHTREAD_MLFLOW_URI"):
        connect(broken)
    connect(tracked.settings)


@pytest.mark.parametrize(
    ("uri", "served"),
    [
        (None, False),
        ("sqlite:////data/mlflow.db", False),
        ("postgresql+psycopg://nightread@db/mlflow", False),
        ("mysql+pymysql://nightread@db/mlflow", False),
        ("http://mlflow:5000", True),
        ("https://mlflow.example.org", True),
    ],
)
def test_only_a_server_keeps_artefacts_elsewhere(tmp_path: Path, uri: str | None, served: bool) -> None:
    assert Settings(workspace=tmp_path, mlflow_uri=uri).mlflow_server == (uri if served else None)


def test_artefacts_are_in_the_workspace_whatever_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracked: Any
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    settings = Settings(workspace=tmp_path / "ws", mlflow_uri=f"sqlite:///{tmp_path}/shared.db")
    with track(settings, "route", "score-1", system_metrics=False) as run:
        run.log_config(settings)
    assert list((tmp_path / "ws" / "mlflow").rglob("config.json"))
    assert not list((tmp_path / "elsewhere").iterdir())
    connect(tracked.settings)


def test_a_store_that_is_lost_while_a_run_is_logged_is_named_without_its_password(settings_of_server: Settings) -> None:
    with (
        pytest.raises(ConfigError, match=r"at http://127\.0\.0\.1:9 failed while 'score-1' was logged") as caught,
        track(settings_of_server, "route", "score-1", system_metrics=False),
    ):
        raise MlflowException("connection refused")
    assert "secret" not in str(caught.value) and "Start its server" in str(caught.value)


@pytest.fixture
def settings_of_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings that name a server; what is logged goes to a file of the test."""
    local = Settings(workspace=tmp_path / "local")
    monkeypatch.setattr(experiment, "connect", lambda _: connect(local))
    return Settings(workspace=tmp_path, mlflow_uri="http://user:secret@127.0.0.1:9")


def test_a_run_of_a_name_is_logged_once_even_after_it_has_ended(tmp_path: Path) -> None:
    settings = Settings(workspace=tmp_path)
    ids = []
    for value in (1.0, 2.0):
        with track(settings, "route", "drift 2026-01-01", system_metrics=False, one_of_its_name=True) as run:
            run.log_metrics({"drift/alarms": value})
            ids.append(run.run_id)
    assert ids[0] == ids[1]
    logged = MlflowClient().get_run(ids[0])
    assert logged.data.metrics["drift/alarms"] == 2.0 and logged.info.status == "FINISHED"


def test_two_processes_that_log_the_same_run_at_once_make_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two workers that end a night together: each looks for the run before the other one has begun it."""
    both, look, ids = threading.Barrier(2), experiment._find_named, list[str]()

    def look_together(*arguments: Any) -> str | None:
        number = look(*arguments)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(timeout=2)  # one alone goes on
        return number

    def log() -> None:
        with track(settings, "route", "score 7", system_metrics=False, one_of_its_name=True) as run:
            ids.append(run.run_id)

    with track(settings, "route", "score 6", system_metrics=False):
        pass
    monkeypatch.setattr(experiment, "_find_named", look_together)
    threads = [threading.Thread(target=log) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 2 and len(set(ids)) == 1


def test_two_processes_begin_an_experiment_together(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """As two first trainings of a route: MLflow refuses to create an experiment twice."""
    both, create, names = threading.Barrier(2), mlflow.create_experiment, list[str]()

    def create_together(*arguments: Any, **options: Any) -> str:
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(timeout=2)
        return str(create(*arguments, **options))

    def log(name: str) -> None:
        with track(settings, "new route", name, system_metrics=False):
            names.append(name)

    connect(settings)
    monkeypatch.setattr(mlflow, "create_experiment", create_together)
    threads = [threading.Thread(target=log, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names) == ["one", "two"]


def test_a_lock_that_cannot_be_written_is_said(settings: Settings) -> None:
    (settings.workspace / LOCK).mkdir()
    with (
        pytest.raises(ConfigError, match="mlflow.lock cannot be written into the workspace"),
        track(settings, "route", "score 7", system_metrics=False),
    ):
        pass
