"""Servers that a night loses: MLflow's and Prefect's end in the middle of it, and are there again for the next one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from pipeline.errors import NightreadError, UnforeseenError
from pipeline.stages.reliability.faults import HOST, Blow, Fault, Mark, free_port
from pipeline.stages.reliability.whole_night import Hospital, send_flagged

READY_SECONDS = 300.0


class LostServer(Fault):
    """A server that ends at a moment of the night, which tries each request once more, and not for minutes."""

    patience: ClassVar[Mapping[str, str]]

    def __init__(self) -> None:
        self.port = free_port()

    @contextlib.contextmanager
    def healthy(self, hospital: Hospital) -> Iterator[None]:
        """Run the server."""
        with self._serving(hospital):
            yield

    @contextlib.contextmanager
    def broken(self, hospital: Hospital, share: float, seconds: float, number: int) -> Iterator[Blow]:
        """End the server at a moment."""
        with self._serving(hospital) as server:
            yield Blow(share * seconds, lambda _: server.kill(), lambda: os.environ.update(self.patience))

    @abstractmethod
    def _serving(self, hospital: Hospital) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        """Run the server while the block runs; yield its process once it answers."""


class MlflowGone(LostServer):
    """The tracking server, over the workspace's MLflow database, ends."""

    name = "mlflow-gone"
    patience = MappingProxyType({"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"})

    def furnish(self, hospital: Hospital) -> Hospital:
        """Track on a server."""
        return replace(hospital, mlflow_uri=f"http://{HOST}:{self.port}")

    def _serving(self, hospital: Hospital) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        database = f"sqlite:///{hospital.workspace / 'mlflow' / 'mlflow.db'}"
        environment = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        command = ["-m", "uvicorn", "mlflow.server.fastapi_app:app", "--host", HOST, "--port", str(self.port)]
        environment |= {"_MLFLOW_SERVER_FILE_STORE": database, "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/"}
        return _serving(command, environment, f"http://{HOST}:{self.port}/health", hospital.workspace.parent)


class PrefectGone(LostServer):
    """The server of Prefect's API, with its own database, ends while `nightread nightly` runs the night as a flow."""

    name = "prefect-gone"
    patience = MappingProxyType({"PREFECT_CLIENT_MAX_RETRIES": "1"})

    def night(self, hospital: Hospital, mark: Mark) -> None:
        """Run `nightread nightly`, and send what it flagged.

        Raises:
            NightreadError: the command ended with another exit code than 0; its last sentence.
        """
        mark("flow")
        command = [sys.executable, "-m", "pipeline.cli", "-w", str(hospital.workspace), "nightly", str(hospital.inbox)]
        environment = self._environment(hospital) | {"NIGHTREAD_REVIEW": "{sample_share: 1}", "NIGHTREAD_WORKERS": "1"}
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise _ended_with(done)
        mark("push")
        send_flagged(hospital.settings, hospital.destination)
        mark("")

    def _environment(self, hospital: Hospital) -> dict[str, str]:
        home = str(hospital.workspace.parent / "prefect")
        environment = {"PREFECT_API_URL": f"http://{HOST}:{self.port}/api", "PREFECT_HOME": home}
        return environment | {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}

    def _serving(self, hospital: Hospital) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        command = ["-m", "prefect", "server", "start", "--host", HOST, "--port", str(self.port)]
        url = f"http://{HOST}:{self.port}/api/health"
        return _serving(command, self._environment(hospital), url, hospital.workspace.parent)


def _ended_with(done: subprocess.CompletedProcess[str]) -> NightreadError:
    """Return an error with the exit code and the last sentence of a command, whatever a library logged besides."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]  # not those of Prefect's log
    sentence = lines[-1].removeprefix("Error: ") if lines else (done.stderr or done.stdout).strip()[-600:]
    if done.returncode < 0 or done.returncode == UnforeseenError.exit_code:
        return UnforeseenError(f"Exit code {done.returncode}: {sentence}")
    error = NightreadError(sentence)
    error.exit_code = done.returncode
    return error


@contextlib.contextmanager
def _serving(
    arguments: Sequence[str], environment: Mapping[str, str], health: str, folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server of Python while the block runs; yield its process once it answers.

    Raises:
        UnforeseenError: it does not answer.
    """
    with (folder / "server.log").open("ab") as log:
        command = [sys.executable, *arguments]
        server = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
        try:
            _await_answer(server, health, folder / "server.log")
            yield server
        finally:
            server.kill()
            server.wait()


def _await_answer(server: subprocess.Popen[bytes], health: str, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(health, timeout=2):
            return
        time.sleep(0.1)
    raise UnforeseenError(f"A server did not answer: {log.read_text(errors='replace')[-1000:]}")
