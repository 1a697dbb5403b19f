"""The scoring of a night shared among the tasks of a runner: one run, and each study once."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.runners import build_runner
from flows.score import _of_one_run
from flows.server import run_server
from pipeline.config import ScoringPolicy, Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("runner", ["threads", "pool"])
def test_threads_need_nothing(runner: Any) -> None:
    assert build_runner(ScoringPolicy(runner=runner, workers=3))._max_workers == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_a_runner_that_is_not_installed_says_what_to_install(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"nightread\[{runner}\]"):
        build_runner(ScoringPolicy(runner=runner))


@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_processes_need_a_server(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(ConfigError, match="PREFECT_API_URL"):
        build_runner(ScoringPolicy(runner=runner))


def test_workers_of_one_run_report_once() -> None:
    def report(run: str, studies: int) -> dict[str, Any]:
        return {"run_id": run, "studies": studies}

    assert _of_one_run([report("a", 5), report("a", 5), report("b", 0)]) == [report("a", 5)]
    assert _of_one_run([report("a", 0), report("b", 0)]) == [report("a", 0)]
    assert _of_one_run([]) == []


def outcome(settings: Settings) -> list[tuple[Any, ...]]:
    with Catalogue.open(settings) as catalogue:
        rows = catalogue.list_findings()
        return [(row.study_id, row.score, row.p_value, row.flagged, row.rule) for row in rows]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of one Prefect server for all runners."""
    with run_server(tmp_path_factory.mktemp("server") / "log") as url:
        yield url


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["threads", "dask", "ray", "pool"])
def test_two_workers_score_each_study_once(runner: str, trained: Any, scored: Any, server: str, tmp_path: Path) -> None:
    if runner in ("dask", "ray") and importlib.util.find_spec(f"prefect_{runner}") is None:
        pytest.skip(f"prefect-{runner} is not installed")
    shutil.copytree(trained.settings.workspace, tmp_path / "workspace")
    settings = Settings(workspace=tmp_path / "workspace")
    environment = {
        **os.environ, "PREFECT_API_URL": server, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(tmp_path / "home"),
        "NIGHTREAD_WORKSPACE": str(settings.workspace),
        "NIGHTREAD_SCORING": json.dumps({"runner": runner, "workers": 2}),
    }  # fmt: skip
    command = [sys.executable, "-m", "flows.score"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert outcome(settings) == outcome(scored.settings), done.stderr[-3000:]
    with Catalogue.open(settings) as catalogue:
        runs = catalogue.list_runs("score")
    assert sorted(run.summary["studies"] for run in runs)[-1] == 6
    assert {run.state for run in runs} == {"done"} and len(runs) <= 2  # the second may have come too late
    # Without the deployment of a helper the one worker does it all, and says so.
    assert (done.returncode == 0) == (runner != "pool"), done.stderr[-3000:]
