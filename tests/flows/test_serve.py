"""`nightread serve` on a real local server yields SCHEDULED runs. (With SQLAlchemy 2.1 none appear, silently.)"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import update

from flows.serve import _is_behind, serve_schedules
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import now
from pipeline.data.catalogue.watch_schema import ScheduleRow
from pipeline.errors import ConfigError
from pipeline.stages.watch.nights import last_night, record_night, register_schedules
from pipeline.stages.watch.schedule import Schedule

SCHEDULE = """
name: test-night
cron: "30 1 * * *"
timezone: Europe/Berlin
roots: [inbox]
configs: []
"""
PATIENCE = 360.0  # seconds, for a machine that is busy with other things


@dataclass(frozen=True, slots=True)
class Served:
    """The running command, what it prints, and its server."""

    process: subprocess.Popen[str]
    out: Path
    url: str


@contextmanager
def serving(place: Path, ready: bool = True) -> Iterator[Served]:
    """The command, running in a workspace of its own; stopped by its process id at the end, whatever happened."""
    (place / "inbox").mkdir()
    (place / "schedule.yaml").write_text(SCHEDULE)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment |= {"PYTHONUNBUFFERED": "1", "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "-w", str(place / "ws")]
    with (place / "out.txt").open("w") as stream:
        process = subprocess.Popen(
            [*command, "serve", "--schedule", "schedule.yaml"],
            stdout=stream, stderr=subprocess.STDOUT, text=True, env=environment, cwd=place, preexec_fn=hear_interrupts,
        )  # fmt: skip
    try:
        pattern = r"Prefect: (http://127\.0\.0\.1:\d+)"
        yield Served(process, place / "out.txt", wait_for(pattern, place / "out.txt", process) if ready else "")
    finally:
        if process.poll() is None:
            family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
            for member in family:
                member.kill()
            process.wait(timeout=PATIENCE)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for the tests that ask it."""
    with serving(tmp_path_factory.mktemp("served")) as running:
        yield running


def hear_interrupts() -> None:
    """Undo what a shell does to its background jobs: they ignore SIGINT, and so would everything that they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(pattern: str, out: Path, process: subprocess.Popen[str]) -> str:
    """Return the pattern's first group once the output holds it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        if match := re.search(pattern, out.read_text()):
            return match.group(1)
        time.sleep(0.5)
    raise AssertionError(f"{pattern!r} never appeared:\n{out.read_text()[-3000:]}")


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    """Ask the server: GET, or POST with a body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


def until(condition: Callable[[], Any], served: Served) -> Any:
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(1)
    raise AssertionError(served.out.read_text()[-3000:])


@pytest.mark.slow
def test_the_schedule_yields_scheduled_runs(served: Served) -> None:
    scheduled = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    runs = until(lambda: ask(f"{served.url}/api/flow_runs/filter", scheduled), served)
    # 01:30 in Berlin is 00:30 or 23:30 UTC: the time zone of the file was taken, not ignored.
    assert {run["expected_start_time"][11:16] for run in runs} <= {"00:30", "23:30"}


@pytest.mark.slow
def test_a_run_of_the_deployment_completes(served: Served) -> None:
    # What the schedule does at night, at once: the runner fetches the run and executes it in a process of its own.
    deployment = ask(f"{served.url}/api/deployments/name/nightly/test-night")
    run = ask(f"{served.url}/api/deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})

    def ended() -> Any:
        now = ask(f"{served.url}/api/flow_runs/{run['id']}")
        return now if now["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

    done = until(ended, served)
    assert done["state_type"] == "COMPLETED", (done["state"]["message"], served.out.read_text()[-3000:])
    assert re.fullmatch(r"night of \d{4}-\d\d-\d\d \d\d:\d\d", done["name"])
    assert set(done["parameters"]) == {"request", "workspace"}


def assert_stops(served: Served, by: signal.Signals) -> None:
    """One signal ends the command, its server and everything else that it started, without a traceback."""
    children = psutil.Process(served.process.pid).children(recursive=True)
    assert children  # the server at least
    served.process.send_signal(by)
    code = served.process.wait(timeout=PATIENCE)
    _, alive = psutil.wait_procs(children, timeout=PATIENCE)
    assert alive == []
    text = served.out.read_text()
    assert "Traceback" not in text and "CancelledError" not in text, text[-3000:]
    assert code in (0, 130, 1), text[-500:]


@pytest.mark.slow
def test_it_stops_with_its_server_and_without_a_traceback(served: Served) -> None:
    assert_stops(served, signal.SIGINT)


@pytest.mark.slow
def test_it_stops_when_it_is_terminated(tmp_path: Path) -> None:  # as systemd and `docker stop` do
    with serving(tmp_path) as served:
        scheduled = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
        until(lambda: ask(f"{served.url}/api/flow_runs/filter", scheduled), served)
        assert_stops(served, signal.SIGTERM)


@pytest.mark.slow
def test_it_stops_when_it_is_terminated_while_the_server_starts(tmp_path: Path) -> None:
    with serving(tmp_path, ready=False) as served:
        until(lambda: psutil.Process(served.process.pid).children(), served)
        assert_stops(served, signal.SIGTERM)


def test_the_weekly_training_retrains_and_leaves_its_record(trained: Any, phantom_night: Any) -> None:
    from flows.request import write_request
    from flows.scheduled import train_scheduled

    settings = trained.settings
    request = write_request(settings, [], [str(phantom_night.config)], [], schedule="weekly-training")
    assert train_scheduled(str(request), str(settings.workspace)) == {"done": 1, "failures": []}
    with Catalogue.open(settings) as catalogue:
        row = last_night(catalogue, "weekly-training")
    assert row is not None and (row.state, row.summary["done"]) == ("done", 1)


def test_the_weekly_retention_follows_the_policy_of_the_workspace(scored: Any, tmp_path: Path) -> None:
    from flows.request import write_request
    from flows.scheduled import retention_scheduled

    settings = Settings(workspace=tmp_path / "site")
    shutil.copytree(scored.settings.workspace, settings.workspace, ignore=shutil.ignore_patterns("prefect"))
    (settings.workspace / "retention.yaml").write_text("logs_days: 30")
    log = settings.workspace / "up" / "logs" / "serve.log"
    log.parent.mkdir(parents=True)
    log.write_text("a line")
    os.utime(log, (0, 0))
    request = write_request(settings, [], [], [], schedule="weekly-retention")
    assert retention_scheduled(str(request), str(settings.workspace)) == {"done": 1, "failures": []}
    assert not log.exists()
    (settings.workspace / "retention.yaml").write_text("logs_days: -30")
    failed = retention_scheduled(str(request), str(settings.workspace), return_state=True)
    assert failed.is_failed()
    with Catalogue.open(settings) as catalogue:
        row = last_night(catalogue, "weekly-retention")
    assert row is not None and (row.state, row.summary["errors"]) == ("failed", ["ConfigError"])


def test_a_missed_firing_is_caught_up_once(settings: Settings) -> None:
    schedule = Schedule(cron=f"0 {(now() - timedelta(hours=3)).hour} * * *")
    assert not _is_behind(settings, schedule)  # it was never served: nothing is missed
    register_schedules(settings, [schedule])
    assert not _is_behind(settings, schedule)
    with Catalogue.open(settings) as catalogue, catalogue.session() as session:
        session.execute(update(ScheduleRow).values(since=now() - timedelta(days=9)))
    assert _is_behind(settings, schedule)
    with record_night(settings, schedule.name):
        pass
    assert not _is_behind(settings, schedule)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("configs: [missing.yaml]", "Cannot read the configuration"),
        ("cron: 0 0 31 2 *", "no such day exists"),
        ("windows: [08:00-09:00]", "never fires within the windows"),
    ],
)
def test_a_wrong_schedule_is_refused_at_once(settings: Settings, tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        serve_schedules([tmp_path / "wrong.yaml"], settings)
    assert not (settings.workspace / "catalogue.db").exists()


def test_two_schedules_of_one_name_are_refused(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("name: nightly")
    with pytest.raises(ConfigError, match="same name"):
        serve_schedules([tmp_path / "one.yaml"] * 2, settings)


@pytest.mark.parametrize(
    ("zone", "cron"),
    [("Europe/Berlin", "30 2 * * *"), ("America/Santiago", "0 0 * * *"), ("Africa/Casablanca", "15 2 * * *")],
)
def test_prefect_fires_no_earlier_than_a_run_counts_from(zone: str, cron: str) -> None:
    """Over a year, with its changes of the clock, the watch expects each of Prefect's firings, and no other."""
    from prefect.server.schemas.schedules import CronSchedule

    schedule, moment = Schedule(cron=cron, timezone=zone), datetime(2026, 1, 1, 12)
    firings = asyncio.run(CronSchedule(cron=cron, timezone=zone).get_dates(n=365, start=moment.replace(tzinfo=UTC)))
    for firing in firings:
        plain, moment = firing.astimezone(UTC).replace(tzinfo=None), schedule.next_firing(moment)
        assert schedule.counts_from(moment) <= plain <= moment
