"""A local Prefect server as a child process, for users without a server: the scheduler needs one that keeps running."""

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

from pipeline.errors import ConfigError, MachineError

READY_SECONDS = 300.0
_CLIENTS = ("httpx", "httpcore")  # what Prefect asks its server with


@contextmanager
def name_lost_server() -> Iterator[None]:
    """Say which server was lost, in place of the error of Prefect's client.

    Raises:
        MachineError: Prefect's server did not answer.
    """
    try:
        yield
    except Exception as error:
        if not _is_lost(error):
            raise
        address = os.environ.get("PREFECT_API_URL", "").rpartition("@")[2] or "this machine"
        raise MachineError(
            f"Prefect's server at {address} was lost in the middle of the night ({type(error).__name__}). Start it "
            "again, or unset PREFECT_API_URL, and run the night again: it goes on where this one ended."
        ) from None


def _is_lost(error: Exception) -> bool:
    """Whether an error is of Prefect's client, or what Prefect makes of it before a flow begins."""
    of_client = type(error).__module__.partition(".")[0] in _CLIENTS
    return of_client or (isinstance(error, RuntimeError) and "Failed to reach API" in str(error))


@contextmanager
def run_server(log_file: Path, port: int = 0) -> Iterator[str]:
    """Yield the API URL: PREFECT_API_URL if it is set, else that of our own server on 127.0.0.1, which is stopped at
    the end.

    Args:
        log_file: receives the server's output.
        port: 0 chooses a free one.

    Raises:
        ConfigError: the server does not respond in time.
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
    """Stop the server; while still starting on a busy machine it may ignore SIGTERM, so it is killed after a
    timeout.
    """
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
        f"The Prefect server did not respond within {READY_SECONDS:.0f} s. See its output in {log_file.name}."
    )
