"""`configs/prefect.yaml` on a real server: deployed to a process work pool, and a worker runs the night."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from flows.server import run_server
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.stages.watch.nights import last_night

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "configs" / "prefect.yaml"
PATIENCE = 400.0


def ask(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


def test_every_entry_point_is_a_flow() -> None:
    import importlib

    from prefect import Flow

    for deployment in yaml.safe_load(FILE.read_text())["deployments"]:
        module, _, name = deployment["entrypoint"].rpartition(".")
        flow = getattr(importlib.import_module(module), name)
        assert isinstance(flow, Flow) and set(deployment["parameters"]) <= set(flow.parameters.properties)


@pytest.mark.slow
def test_a_worker_of_a_process_pool_runs_the_night_until_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    workspace, schedule = tmp_path / "ws", tmp_path / "night.yaml"
    workspace.mkdir()
    schedule.write_text("name: nightly\ncron: 30 1 * * *\ndeadline_hours: 0.0001\n")
    with run_server(tmp_path / "server.log") as url:
        environment = {
            **os.environ, "PREFECT_API_URL": url, "NIGHTREAD_WORKSPACE": str(workspace), "PYTHONPATH": str(ROOT),
            "NIGHTREAD_SCHEDULE": str(schedule), "PREFECT_HOME": str(tmp_path / "home"),
        }  # fmt: skip

        def prefect(*arguments: str) -> None:
            command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
            done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

        prefect("work-pool", "create", "nights", "--type", "process")
        prefect("deploy", "--all", "--prefect-file", str(FILE))
        deployment = ask(f"{url}/deployments/name/nightly/nightly")
        assert (deployment["work_pool_name"], deployment["parameters"]["request"]) == ("nights", str(schedule))
        run = ask(f"{url}/deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})
        out = (tmp_path / "worker.log").open("w")
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "nights"]
        worker = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=out, stderr=subprocess.STDOUT)
        try:
            deadline, state = time.monotonic() + PATIENCE, ""
            while state not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") and time.monotonic() < deadline:
                time.sleep(2)
                state = ask(f"{url}/flow_runs/{run['id']}")["state_type"]
        finally:
            for process in [*psutil.Process(worker.pid).children(recursive=True), psutil.Process(worker.pid)]:
                process.kill()
            worker.wait()
            out.close()
        assert state == "COMPLETED", (tmp_path / "worker.log").read_text()[-3000:]
    with Catalogue.open(Settings(workspace=workspace)) as catalogue:
        night = last_night(catalogue, "nightly")
    assert night is not None and night.state == "done"
    assert night.summary["stopped"] == "The night stopped at its deadline. Left to the next one: 1 evaluation."
