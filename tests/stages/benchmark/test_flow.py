"""`nightread benchmark FILE` as a user runs it: killed in the middle, it goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Settings
from pipeline.stages.benchmark.config import Benchmark
from pipeline.tracking.experiment import connect

pytestmark = pytest.mark.slow  # processes, a Prefect server, and two trainings


def started(hospital: Any, file: Path, *arguments: str) -> subprocess.Popen[str]:
    code = "import sys; from pipeline.cli import main; sys.argv[0] = 'nightread'; main()"
    command = [sys.executable, "-c", code, "-w", str(hospital.settings.workspace), "benchmark", str(file), *arguments]
    environment = {**os.environ, "PREFECT_HOME": str(hospital.settings.workspace / "prefect")}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True)


@pytest.fixture(scope="module")
def file(hospital: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models; the second one's method does not exist."""
    path = tmp_path_factory.mktemp("flow") / "killed.yaml"
    path.write_text(
        f"name: killed\nbase: {{file: {hospital.run_file}}}\ncriterion: auroc\nmethods:\n"
        "  - {name: first, method: {name: ae, widths: [8, 8], hidden: 16}}\n"
        "  - {name: second, method: {name: ae, widths: [8, 8], hidden: 8}}\n"
        "  - {name: odd, method: {name: no_such_method}}\n"
    )
    return path


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 400) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()[1][-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_killed_in_the_middle_it_goes_on(hospital: Any, file: Path) -> None:
    settings: Settings = hospital.settings
    cells = settings.workspace / "benchmarks" / "killed" / "cells"
    process = started(hospital, file)
    wait_for(cells / "first.own.0.json", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    written = (cells / "first.own.0.json").stat().st_mtime_ns
    assert not (cells.parent / "leaderboard.md").exists()

    again = started(hospital, file, "--workers", "2", "--json")
    out, err = again.communicate(timeout=600)
    assert again.returncode == 1, err[-2000:]  # one method cannot be built
    report = json.loads(out)
    assert list(report["failures"]) == ["odd.own.0"]
    assert "no_such_method" in report["failures"]["odd.own.0"]
    assert (cells / "first.own.0.json").stat().st_mtime_ns == written  # never computed again
    assert json.loads((cells / "second.own.0.json").read_text())["state"] == "done"
    assert "| first" in report["markdown"] and "| second" in report["markdown"]
    assert children(settings, file) == {"first.own.0", "second.own.0", "odd.own.0"}


def children(settings: Settings, file: Path) -> set[str]:
    """Names of the MLflow runs beneath the benchmark's."""
    import mlflow

    connect(settings)
    above = json.loads((settings.workspace / "benchmarks" / "killed" / "benchmark.json").read_text())
    runs = mlflow.search_runs(
        experiment_names=[above["route"]],
        filter_string=f"tags.`mlflow.parentRunId` = '{above['mlflow']}'",
        output_format="list",
    )
    assert len(runs) == len(list(Benchmark.read(file).cells()))
    return {run.info.run_name for run in runs}
