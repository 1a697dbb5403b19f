"""`mlflow models serve` gives the same scores for base64 bytes, and opens no file that a stranger names."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

URI = "models:/nightread-phantom-mr@champion"
READY_SECONDS = 240.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(stranger: Path, tracked: Any, files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The champion behind MLflow's scoring server, in an environment without us; stopped by process id."""
    place = tmp_path_factory.mktemp("server")
    url = f"http://127.0.0.1:{(port := free_port())}"
    environment = {
        "PATH": f"{stranger.parent}:/usr/bin:/bin",
        "HOME": str(place),
        "OMP_NUM_THREADS": "1",
        "MLFLOW_TRACKING_URI": tracked.settings.mlflow,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "NIGHTREAD_PATH_ROOT": str(files[0].parents[1]),  # even with it a server opens no path
    }
    code = "from mlflow.cli import cli; cli()"
    command = [stranger, "-c", code, "models", "serve", "-m", URI, "--env-manager", "local", "-h", "127.0.0.1"]
    (stranger.parent / "uvicorn").write_text(f"#!{stranger}\nfrom uvicorn.main import main\nmain()\n")
    (stranger.parent / "uvicorn").chmod(0o755)
    with (place / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "-p", str(port), "--workers", "1"], stdout=log, stderr=log, env=environment, cwd=place
        )
    try:
        wait_until_ready(url, process, place / "log")
        yield url
    finally:
        stop(process)


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/ping", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-3000:])


def stop(process: subprocess.Popen[bytes]) -> None:
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.terminate()
    _, alive = psutil.wait_procs(family, timeout=READY_SECONDS)
    for member in alive:
        member.kill()
    process.wait(timeout=READY_SECONDS)


def ask(url: str, columns: list[str], rows: list[list[Any]]) -> list[dict[str, Any]]:
    body = json.dumps({"dataframe_split": {"columns": columns, "data": rows}}).encode()
    request = urllib.request.Request(f"{url}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=READY_SECONDS) as answer:
        return list(json.load(answer)["predictions"])


@pytest.mark.slow
def test_the_server_gives_the_same_scores(server: str, encoded: list[str], expected: list[float]) -> None:
    rows = ask(server, ["dicom"], [[text] for text in encoded])
    assert [row["score"] for row in rows] == pytest.approx(expected, rel=1e-5)
    assert {row["error"] for row in rows} == {""}


@pytest.mark.slow
def test_the_server_refuses_paths(server: str, files: list[Path]) -> None:
    row = ask(server, ["path"], [[str(files[0])]])[0]
    assert "does not accept paths" in row["error"]
    assert row["score"] is None or math.isnan(row["score"])
    assert os.path.basename(files[0]) not in row["error"]  # noqa: PTH119


@pytest.mark.slow
def test_the_server_answers_the_good_rows_beside_bad_ones(
    server: str, encoded: list[str], expected: list[float]
) -> None:
    rows = ask(server, ["dicom"], [["!!"], [encoded[0]]])
    assert [bool(row["error"]) for row in rows] == [True, False]
    assert rows[1]["score"] == pytest.approx(expected[0], rel=1e-5)


@pytest.mark.slow
def test_the_server_refuses_invalid_requests(server: str) -> None:
    request = urllib.request.Request(f"{server}/invocations", b"{", {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=READY_SECONDS)
    assert refused.value.code == 400
