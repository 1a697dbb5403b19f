"""The printed commands open pages that find their own data, on whichever port."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from pipeline.stages.operations.ui_commands import PREFECT_PORT, mlflow_command, prefect_command


def test_paths_are_quoted_and_a_configured_store_is_not_printed(tmp_path: Path) -> None:
    place = tmp_path / "with space"
    words = shlex.split(mlflow_command(place, programs=".venv/bin/"))
    assert words[1:3] == [".venv/bin/mlflow", "ui"] and f"sqlite:///{place}/mlflow/mlflow.db" in words
    assert f"PREFECT_HOME={place}/prefect" in shlex.split(prefect_command(place))
    assert "secret" not in mlflow_command(place, "postgresql://nightread:secret@db/mlflow")


@pytest.mark.slow
def test_prefects_pages_ask_the_port_that_was_chosen(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = prefect_command(tmp_path, programs=f"{Path(sys.executable).parent}/").replace(
        str(PREFECT_PORT), str(port)
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    server = subprocess.Popen(["sh", "-c", f"exec env {command}"], env=clean, start_new_session=True)
    try:
        settings = None
        for _ in range(300):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/ui-settings", timeout=5) as answer:
                    settings = json.load(answer)
                break
            except OSError:
                time.sleep(0.5)
        assert settings is not None and settings["api_url"].endswith(f":{port}/api")
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # a Prefect that still starts may not hear SIGTERM
        server.wait()
