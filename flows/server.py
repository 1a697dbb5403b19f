"""A local Prefect server as a child process, for those who have none: the scheduler needs a server that stays up."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import ConfigError

READY_SECONDS = 300.0


@contextmanager
def prefect_server(log_file: Path, port: int = 0) -> Iterator[str]:
    """Yield the API URL: PREFECT_API_URL where it is set, else a server of our own on 127.0.0.1, stopped at the end.

    Args:
        log_file: what the server prints goes here.
        port: 0 takes a free one.

    Raises:
        ConfigError: the server does not answer in time.
    """
    if url := os.environ.get("PREFECT_API_URL"):
        yield url
        return
    url = f"http://127.0.0.1:{port or _free_port()}/api"
    with log_file.open("a") as log:
        command = [
            sys.executable,
            "-m",
            "prefect",
            "server",
            "start",
            "--host",
            "127.0.0.1",
            "--port",
            url.split(":")[2][:-4],
        ]
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PREFECT_API_URL": url})
        try:
            _wait_until_ready(url, process, log_file)
            os.environ["PREFECT_API_URL"] = url
            yield url
        finally:
            os.environ.pop("PREFECT_API_URL", None)
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server; one that is still starting, on a busy machine, may not listen."""
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log_file: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise ConfigError(
        f"The Prefect server did not answer within {READY_SECONDS:.0f} s. Its output is in {log_file.name}."
    )
