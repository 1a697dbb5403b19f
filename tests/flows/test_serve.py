"""`nightread serve` on a real local server yields SCHEDULED runs. (With SQLAlchemy 2.1 none appear, silently.)"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

SCHEDULE = """
name: test-night
cron: "30 1 * * *"
timezone: Europe/Berlin
roots: [inbox]
configs: []
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """The command, running in a workspace of its own; stopped by its process id at the end."""
    (tmp_path / "schedule.yaml").write_text(SCHEDULE)
    out = tmp_path / "out.txt"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_API")}
    environment |= {"PYTHONUNBUFFERED": "1", "PREFECT_HOME": str(tmp_path / "prefect")}
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "-w", str(tmp_path / "ws")]
    with out.open("w") as stream:
        process = subprocess.Popen(
            [*command, "serve", "--schedule", str(tmp_path / "schedule.yaml")],
            stdout=stream, stderr=subprocess.STDOUT, text=True, env=environment, cwd=tmp_path,
        )  # fmt: skip
    yield process, out
    family = psutil.Process(process.pid).children(recursive=True) if psutil.pid_exists(process.pid) else []
    for member in family:
        member.kill()
    process.kill()
    process.wait(timeout=30)


def wait_for(pattern: str, out: Path, process: subprocess.Popen[str], seconds: float) -> str:
    """Return the pattern's first group once the output holds it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(pattern, out.read_text()):
            return found.group(1)
        time.sleep(0.5)
    raise AssertionError(f"{pattern!r} never appeared:\n{out.read_text()[-3000:]}")


def scheduled_runs(url: str) -> list[dict[str, Any]]:
    """Ask the server for runs in state SCHEDULED."""
    body = json.dumps({"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}).encode()
    request = urllib.request.Request(f"{url}/api/flow_runs/filter", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return list(json.load(answer))


def test_the_schedule_yields_scheduled_runs(served: tuple[subprocess.Popen[str], Path]) -> None:
    process, out = served
    url = wait_for(r"Prefect: (http://127\.0\.0\.1:\d+)", out, process, 180)
    runs: list[dict[str, Any]] = []
    deadline = time.monotonic() + 120
    while not runs and time.monotonic() < deadline:
        runs = scheduled_runs(url)
        time.sleep(1)
    assert runs, out.read_text()[-3000:]
    # 01:30 in Berlin is 00:30 or 23:30 UTC: the time zone of the file was taken, not ignored.
    assert {run["expected_start_time"][11:16] for run in runs} <= {"00:30", "23:30"}
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []  # the server that it started is stopped with it
