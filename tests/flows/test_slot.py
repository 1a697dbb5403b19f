"""The slot of a night that died with the machine comes back, since the server finds its lease on disk."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Settings
from pipeline.stages.up.parts import plan
from pipeline.stages.watch.site_config import SiteConfig

PATIENCE = 240.0


@contextmanager
def server(environment: dict[str, str], port: int, log: Path) -> Iterator[None]:
    """Run Prefect's server, and kill it at the end."""
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("a") as stream:
        process = subprocess.Popen(
            command, env=environment, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < end, log.read_text()[-2000:]
                time.sleep(0.5)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def begin(client: Any, deployment: Any) -> tuple[Any, str]:
    """Begin a run as a worker does, and return it with the state that the server has put it into."""
    from prefect.states import Pending

    run = client.create_flow_run_from_deployment(deployment)
    return run.id, client.set_flow_run_state(run.id, Pending()).state.type.value


@pytest.mark.slow
def test_the_slot_of_a_night_that_died_with_the_server_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import Running

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "prefect").mkdir()
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    (part,) = plan(Settings(workspace=tmp_path), SiteConfig(), ["prefect"])
    url = f"http://127.0.0.1:{port}/api"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    shortest = {"PREFECT_SERVER_CONCURRENCY_INITIAL_DEPLOYMENT_LEASE_DURATION": "30", "PREFECT_API_URL": url}
    environment = clean | part.environment | shortest
    cancelling = ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    with temporary_settings({PREFECT_API_URL: url}):
        with server(environment, port, tmp_path / "log"), get_client(sync_client=True) as client:
            flow = client.create_flow_from_name("nightly")
            night = client.create_deployment(flow, "night", concurrency_limit=1, concurrency_options=cancelling)
            first, state = begin(client, night)
            assert state == "PENDING" and client.set_flow_run_state(first, Running()).state.type.value == "RUNNING"
            assert begin(client, night)[1] == "CANCELLED"
        with server(environment, port, tmp_path / "log"), get_client(sync_client=True) as client:
            end, state = time.monotonic() + PATIENCE, "CANCELLED"
            while state == "CANCELLED" and time.monotonic() < end:
                time.sleep(5)
                state = begin(client, night)[1]
            assert state == "PENDING"
