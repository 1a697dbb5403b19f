"""Passing failures are retried, permanent ones are not, hanging work is cut off, and one failure stops nothing else."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow, task
from prefect.tasks import Task

import flows
from flows import ingest as ingest_module
from flows.nightly import run_nightly
from flows.policies import STEADY, keep_discreet
from flows.request import hold_request
from flows.server import name_lost_server
from pipeline.config import Settings
from pipeline.data.ingest.ingest import IngestReport
from pipeline.errors import CatalogueError, ConfigError, IdentityError, MachineError, UnforeseenError

DONE = IngestReport(files=1, added=1, same=0, new_versions=0, skipped=0)
Calls = dict[str, int]


@pytest.fixture
def ingesting(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, list[Exception]]], Calls]:
    """Let the ingest of a folder fail with the given errors, one per call, and then work; count the calls."""

    def plan(errors: dict[str, list[Exception]]) -> Calls:
        calls: Calls = {}

        def faulty(paths: list[Path], settings: Settings, on_progress: Any) -> IngestReport:
            name = paths[0].name
            calls[name] = calls.get(name, 0) + 1
            if errors.get(name):
                raise errors[name].pop(0)
            return DONE

        monkeypatch.setattr(ingest_module, "ingest_paths", faulty)
        quick = ingest_module.ingest_root.with_options(retry_delay_seconds=[0.1, 0.2, 0.3], retry_jitter_factor=None)
        monkeypatch.setattr(ingest_module, "ingest_root", quick)
        return calls

    return plan


def ingest(roots: list[str], workspace: Path) -> tuple[Any, dict[str, Any]]:
    with hold_request(str(workspace), roots) as request:
        state = ingest_module.ingest(request, str(workspace), return_state=True)
    return state, state.result(raise_on_failure=False)


def test_a_root_that_is_not_mounted_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not a bad file either: nobody would look for last night's scans among the rejections."""
    quick = ingest_module.ingest_root.with_options(retries=0)
    monkeypatch.setattr(ingest_module, "ingest_root", quick)
    (tmp_path / "there").mkdir()
    state, value = ingest([str(tmp_path / "there"), str(tmp_path / "Doe^Jane")], tmp_path / "ws")
    assert state.is_failed() and len(value["reports"]) == 1
    assert "does not exist" in value["failures"][0] and "Doe" not in str(value)


def test_input_output_faults_are_tried_again(ingesting: Any, tmp_path: Path) -> None:
    calls = ingesting({"a": [OSError(5, "Input/output error", "/x/Doe^Jane"), CatalogueError("locked")]})
    state, value = ingest(["a"], tmp_path)
    assert calls == {"a": 3}
    assert state.is_completed()
    assert value["failures"] == []
    assert [report["added"] for report in value["reports"]] == [1]


def test_a_locked_crosswalk_is_tried_again_and_a_missing_key_is_not(ingesting: Any, tmp_path: Path) -> None:
    locked, missing = IdentityError("database is locked"), IdentityError("the key is missing")
    locked.passing = True
    calls = ingesting({"a": [locked], "b": [missing]})
    state, value = ingest(["a", "b"], tmp_path)
    assert calls == {"a": 2, "b": 1}
    assert value["failures"] == ["IdentityError: the key is missing"]


def test_a_wrong_configuration_is_not_tried_again_and_stops_no_other_folder(ingesting: Any, tmp_path: Path) -> None:
    calls = ingesting({"bad": [ConfigError("wrong")] * 9})
    state, value = ingest(["bad", "good"], tmp_path)
    assert calls == {"bad": 1, "good": 1}
    assert state.is_failed()
    assert value["failures"] == ["ConfigError: wrong"]
    assert [report["added"] for report in value["reports"]] == [1]


def test_a_permanent_fault_is_reported_without_the_path(ingesting: Any, tmp_path: Path) -> None:
    calls = ingesting({"bad": [OSError(5, "Input/output error", "/x/Doe^Jane")] * 9})
    state, value = ingest(["bad"], tmp_path)
    assert calls == {"bad": 4}
    assert "Input/output error" in value["failures"][0]
    assert "Doe" not in str(value) + str(state.message)


def test_a_task_that_hangs_is_cut_off_once() -> None:
    calls, seconds = [], []

    @task(timeout_seconds=0.5, **{**STEADY, "retry_delay_seconds": 0})
    def hang() -> None:
        calls.append(1)
        while True:  # a limit takes effect between two instructions of Python, so it would not cut one long sleep
            time.sleep(0.05)

    @flow(persist_result=False)
    def wait() -> Any:
        started = time.monotonic()
        state = hang(return_state=True)
        seconds.append(time.monotonic() - started)
        return state.name

    assert wait() == "TimedOut"
    assert seconds[0] < 20
    assert calls == [1]


@pytest.mark.slow
def test_a_night_survives_whatever_is_wrong_with_its_request(phantom_night: Any, tmp_path: Path) -> None:
    gone = tmp_path / f"gone {phantom_night.planted}"
    (tmp_path / "bad.yaml").write_text("name: x\n")
    empty = phantom_night.config  # a good configuration, and nothing to train on
    report = run_nightly(
        [str(gone), str(phantom_night.inbox)],
        [str(tmp_path / "bad.yaml"), str(empty)],
        [str(gone / "labels.csv")],
        str(tmp_path / "workspace"),
    )
    kinds = [failure.partition(":")[0] for failure in report["failures"]]
    assert "ConfigError" in kinds
    assert "EmptySelection" in kinds
    assert report["new"] == 6  # the folder that is there was taken in
    assert "**Failed**" in report["markdown"]
    assert phantom_night.planted.lower() not in " ".join(report["failures"]).lower()


def test_every_task_has_a_time_limit_retries_and_keeps_no_pickle() -> None:
    names = [module.name for module in pkgutil.iter_modules(flows.__path__) if module.name != "demo"]
    modules = [importlib.import_module(f"flows.{name}") for name in names]
    tasks = {value.name: value for module in modules for value in vars(module).values() if isinstance(value, Task)}
    assert set(tasks) == {
        *("ingest-root", "import-labels", "train-method", "calibrate", "score-route", "show-flagged"),
        *("evaluate-route", "benchmark-model", "benchmark-end", "run-task", "retrain", "retain", "publish-report"),
    }
    for one in tasks.values():
        # a benchmark resumes by itself: running the command again goes on, and a retry would hide the fault
        retries = 0 if one.name.startswith("benchmark-") else 3
        assert one.retries == retries and one.retry_condition_fn is not None
        # in a thread a limit could not interrupt the wait for a process, which `training.max_seconds` bounds instead
        assert (one.timeout_seconds is None) is (one.name == "benchmark-model")
        assert one.persist_result is (one.name == "evaluate-route")
        assert one.result_serializer == ("json" if one.persist_result else None)


def test_discreet_lets_our_own_sentences_through() -> None:
    with pytest.raises(ConfigError, match="^ours$"), keep_discreet():
        raise ConfigError("ours")


def test_discreet_takes_the_path_from_a_system_error() -> None:
    with pytest.raises(PermissionError) as caught, keep_discreet():
        raise PermissionError(13, "Permission denied", "/x/Doe^Jane")
    assert "Doe" not in str(caught.value)


def test_discreet_tells_kind_and_place_of_the_unforeseen() -> None:
    with pytest.raises(UnforeseenError) as caught, keep_discreet():
        DONE.to_json()["Doe^Jane"]
    assert "KeyError" in str(caught.value)
    assert "Doe" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_discreet_lets_a_cancellation_through() -> None:
    with pytest.raises(asyncio.CancelledError), keep_discreet():
        raise asyncio.CancelledError


def test_a_lost_server_is_named_and_other_errors_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://user:secret@127.0.0.1:9/api")
    with pytest.raises(MachineError, match=r"at 127\.0\.0\.1:9/api was lost .*ConnectError"), name_lost_server():
        raise httpx.ConnectError("All connection attempts failed")
    with pytest.raises(MachineError, match="RuntimeError"), name_lost_server():  # as Prefect says it before a flow
        raise RuntimeError("Failed to reach API at http://127.0.0.1:9/api/") from httpx.ConnectError("refused")
    with pytest.raises(RuntimeError, match="another"), name_lost_server():
        raise RuntimeError("another")
    with pytest.raises(KeyError), name_lost_server():
        raise KeyError("x")
