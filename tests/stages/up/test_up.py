"""A site starts, heals and ends: ports and locks are checked first, what dies comes back, and no process is left."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from pipeline.cli import group
from pipeline.cli.up import NAMES
from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.stages.up.leftovers import end_marked, list_marked
from pipeline.stages.up.parts import MARK, check_ports, mark_of, plan
from pipeline.stages.up.supervise import _configuration
from pipeline.stages.watch.components import FOLDER, read_running
from pipeline.stages.watch.site_config import COMPONENTS, Ports, SiteConfig

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 240.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True)
def no_outside_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)


def test_every_component_has_a_plan_and_an_option(settings: Settings) -> None:
    parts = plan(settings, SiteConfig())
    assert tuple(part.name for part in parts) == COMPONENTS == NAMES
    for part in parts:
        assert part.port is None or str(part.port) in (*part.command, *part.environment.values())
        assert "0.0.0.0" not in " ".join(part.command)
    assert next(part for part in parts if part.name == "schedules").after == "prefect"
    assert parts[0].environment["PREFECT_API_URL"].endswith(":4200/api")
    assert parts[0].environment["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"].endswith(".filesystem")


def test_servers_that_run_elsewhere_are_not_started(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://10.0.0.1:4200/api")
    elsewhere = settings.model_copy(update={"mlflow_uri": "https://mlflow.example.org"})
    assert [part.name for part in plan(elsewhere, SiteConfig())] == ["schedules", "review", "listener", "watch"]


def test_secrets_are_not_on_command_lines(settings: Settings) -> None:
    secret = settings.model_copy(update={"mlflow_uri": "postgresql://mlflow:hidden@db/mlflow"})
    assert all("hidden" not in " ".join(part.command) for part in plan(secret, SiteConfig()))


def test_options_of_the_site_reach_the_components(settings: Settings) -> None:
    site = SiteConfig(
        listen_options=("--host", "0.0.0.0", "--allow", "CT01"),
        review_options=("--tls-cert", "a.pem", "--tls-key", "a.key"),
    )
    review, listener = plan(settings, site, ("review", "listener"))
    assert review.component.check == "https://127.0.0.1:8650/health"
    assert listener.component.address == "NIGHTREAD@0.0.0.0:11112" and "--allow-any" not in listener.command
    assert listener.component.check == "dicom://CT01:NIGHTREAD@127.0.0.1:11112"
    (local,) = plan(settings, SiteConfig(), ("listener",))
    assert local.command[-1] == "--allow-any"  # nothing but this machine reaches it
    (tls,) = plan(settings, SiteConfig(listen_options=("--tls-cert=a.pem", "--tls-key=a.key")), ("listener",))
    assert tls.component.check == "tls://127.0.0.1:11112"


def test_a_component_that_the_site_lacks_is_refused(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="has no component mlflow"):
        plan(settings, SiteConfig(components=("review",)), ("mlflow",))


def test_a_busy_port_is_named_before_anything_starts(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = CliRunner().invoke(
            group, ["-w", str(settings.workspace), "up", "--only", "review", "--review-port", str(port)]
        )
    assert done.exit_code == 2
    assert f"Port {port} of review cannot be used" in done.output and f"by process {os.getpid()}" in done.output
    assert "--review-port" in done.output
    assert not (settings.workspace / FOLDER / "logs").exists()


def test_a_port_that_was_just_left_is_free(settings: Settings) -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # the side that closes first waits in TIME_WAIT
        client.close()
    check_ports(plan(settings, SiteConfig(ports=Ports(review=port)), ("review",)))


def test_two_ports_alike_are_refused(settings: Settings) -> None:
    done = CliRunner().invoke(group, ["-w", str(settings.workspace), "up", "--review-port", "4200"])
    assert done.exit_code == 2 and "two components have the same port" in done.output


def test_odd_names_of_folders_do_not_reach_the_configuration(settings: Settings, tmp_path: Path) -> None:
    odd = settings.model_copy(update={"workspace": tmp_path / "a % ; # b"})
    text = _configuration(Path("/tmp/nightread-x"), plan(odd, SiteConfig()))
    assert "% ;" not in text and text.count("[program:") == len(COMPONENTS)


def test_leftovers_are_ended_by_their_mark_even_those_that_ignore_the_signal(settings: Settings) -> None:
    (settings.workspace / FOLDER).mkdir()
    mark = mark_of(settings, "review")
    code = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(99)"
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"])
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, MARK: mark}, stdout=subprocess.PIPE, start_new_session=True
    ) as left:
        assert left.stdout is not None and left.stdout.readline() == b"up\n"
        assert [process.pid for process in list_marked(mark)] == [left.pid]
        assert end_marked(mark_of(settings, "mlflow")) == 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pipeline.stages.up.leftovers.PATIENCE_SECONDS", 0.5)
            assert end_marked(mark_of(settings)) == 1
        assert not psutil.pid_exists(left.pid)
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


@contextmanager
def running(workspace: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """`nightread up` in a process of its own; whatever happens, everything that bears its mark is ended."""
    out = workspace / "out.txt"
    code = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\nfrom pipeline.cli import main\nmain()"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    with out.open("w") as stream:
        command = [sys.executable, "-c", code, "-w", str(workspace), "up", *options]
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment
        )
    try:
        wait_for("Everything runs", out, process)
        yield process, out
    finally:
        process.kill()
        process.wait()
        end_marked(mark_of(Settings(workspace=workspace)))


def wait_for(text: str, out: Path, process: subprocess.Popen[str], count: int = 1) -> None:
    deadline = time.monotonic() + PATIENCE
    while out.read_text().count(text) < count:
        assert process.poll() is None and time.monotonic() < deadline, out.read_text()[-3000:]
        time.sleep(0.3)


@pytest.mark.slow
def test_what_dies_comes_back_and_ctrl_c_leaves_nothing(settings: Settings) -> None:
    only = ("--only", "listener", "--only", "watch")
    ports = ("--dicom-port", str(free_port()), "--metrics-port", str(free_port()))
    with running(settings.workspace, *only, *ports) as (process, out):
        state = read_running(settings)
        assert state is not None and state.pid == process.pid
        second = CliRunner().invoke(group, ["-w", str(settings.workspace), "up", *only])
        assert second.exit_code == 2 and "is running on this workspace already" in second.output
        for name in ("listener", "watch"):
            (victim,) = list_marked(mark_of(settings, name))
            victim.kill()
            wait_for(f"{name} is ready again", out, process)
            (heir,) = list_marked(mark_of(settings, name))
            assert heir.pid != victim.pid
        done = CliRunner().invoke(group, ["-w", str(settings.workspace), "status", "--json"])
        assert {one["state"] for one in json.loads(done.output)["components"]} == {"up"}
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE) == 0
        _, alive = psutil.wait_procs(children, timeout=PATIENCE)
        assert alive == [] and list_marked(mark_of(settings)) == []
        assert read_running(settings) is None and "Traceback" not in out.read_text()


@pytest.mark.slow
def test_a_killed_site_leaves_no_process_and_a_critical_status(settings: Settings) -> None:
    with running(settings.workspace, "--only", "listener", "--dicom-port", str(free_port())) as (process, _):
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        _, alive = psutil.wait_procs(children, timeout=PATIENCE)
        assert alive == [] and list_marked(mark_of(settings)) == []
    done = CliRunner().invoke(group, ["-w", str(settings.workspace), "status"])
    assert done.exit_code == 2 and "listener does not answer" in done.output


@pytest.mark.slow
def test_a_component_that_cannot_start_ends_with_its_log(settings: Settings) -> None:
    site = settings.workspace / "site.yaml"
    site.write_text("listen_options: [--host, 127.0.0.1, --tls-cert, missing.pem, --allow-any]\n")
    options = ["-w", str(settings.workspace), "up", "--only", "listener", "--dicom-port", str(free_port())]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *options], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE
    )
    assert done.returncode == 2
    assert "did not become healthy" in done.stderr and "--tls" in done.stderr
