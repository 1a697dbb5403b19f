"""The process manager of a site: supervisor, on a private socket, with a configuration made from the plan."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import sys
import tempfile
import xmlrpc.client
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.stages.up.parts import Part, mark_of
from pipeline.stages.up.run_component import end_with_parent
from pipeline.stages.watch.components import FOLDER

STEADY_SECONDS = 5  # a component that ends sooner is restarted after 1, 2, 3, ... seconds
RETRIES = 30
STOP_SECONDS = 30
_HEAD = """[supervisord]
nodaemon=true
silent=true
identifier=nightread
logfile={runtime}/logs/supervisor.log
logfile_maxbytes=5MB
logfile_backups=1
pidfile={runtime}/supervisor.pid
childlogdir={runtime}/logs
[unix_http_server]
file={runtime}/socket
chmod=0700
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
_PROGRAM = """[program:{name}]
command={python} -m pipeline.stages.up.run_component {runtime}/plan.json {name}
autostart=false
autorestart=true
startsecs={steady}
startretries={retries}
stopsignal=TERM
stopwaitsecs={stop}
killasgroup=true
redirect_stderr=true
stdout_logfile={runtime}/logs/{name}.log
stdout_logfile_maxbytes=5MB
stdout_logfile_backups=2
"""


@dataclass
class Manager:
    """A running process manager."""

    process: subprocess.Popen[bytes]
    socket: Path

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a method of supervisor's interface, on a connection of its own: one that failed cannot be used again.

        Raises:
            OSError: the process manager does not answer.
            xmlrpc.client.Fault: it refuses.
        """
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(serverurl=f"unix://{self.socket}")
        with xmlrpc.client.ServerProxy("http://nightread", transport) as proxy:
            return getattr(proxy.supervisor, name)(*arguments)

    def await_answer(self) -> bool:
        """Wait until it answers; False if it ends or stays silent."""
        for _ in range(600):
            with suppress(OSError, http.client.HTTPException):
                self.call("getState")
                return True
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=0.1)
                return False
        return False

    def is_alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def start(self, name: str) -> None:
        """Start a component, without waiting for it; one that runs is left alone."""
        with suppress(xmlrpc.client.Fault):
            self.call("startProcess", name, False)

    def kill(self, name: str) -> None:
        """Kill a component, which is then started again like one that died; one that does not run is left alone."""
        with suppress(xmlrpc.client.Fault):
            self.call("signalProcess", name, "KILL")

    def states(self) -> dict[str, tuple[str, int]]:
        """Return (state in supervisor's words, process id) of each component.

        Raises:
            OSError: the process manager does not answer.
        """
        return {one["name"]: (one["statename"], one["pid"]) for one in self.call("getAllProcessInfo")}

    def stop(self) -> None:
        """Stop every component, and then the process manager itself."""
        if self.is_alive():
            self.process.terminate()
        try:
            self.process.wait(timeout=2 * STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()  # the kernel ends its components with it, and the leftovers are ended after that
            self.process.wait()


@contextmanager
def managing(settings: Settings, parts: Sequence[Part]) -> Iterator[Manager]:
    """Run the process manager with every component stopped; at the end all are stopped.

    It runs in a session of its own, so that Ctrl-C reaches `nightread up` alone, which stops everything in order. Its
    files are in a private folder with a short path, since a socket's path may have 108 characters at most.

    Raises:
        ConfigError: it does not start.
    """
    runtime = Path(tempfile.mkdtemp(prefix="nightread-"))
    logs = settings.workspace / FOLDER / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    (runtime / "logs").symlink_to(logs)
    values = {"mark": mark_of(settings), "parts": {part.name: part.to_json() for part in parts}}
    (runtime / "plan.json").write_text(json.dumps(values, default=str), encoding="utf-8")
    (runtime / "supervisor.conf").write_text(_configuration(runtime, parts), encoding="utf-8")
    command = [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(runtime / "supervisor.conf")]
    nothing = subprocess.DEVNULL
    process = subprocess.Popen(
        command, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True, preexec_fn=end_with_parent
    )
    manager = Manager(process, runtime / "socket")
    try:
        if not manager.await_answer():
            raise ConfigError(f"The process manager did not start. See {logs / 'supervisor.log'}")
        yield manager
    finally:
        manager.stop()
        shutil.rmtree(runtime, ignore_errors=True)


def _configuration(runtime: Path, parts: Sequence[Part]) -> str:
    python = sys.executable.replace("%", "%%")
    numbers = {"steady": STEADY_SECONDS, "retries": RETRIES, "stop": STOP_SECONDS}
    programs = [_PROGRAM.format(name=part.name, python=python, runtime=runtime, **numbers) for part in parts]
    return _HEAD.format(runtime=runtime) + "".join(programs)
