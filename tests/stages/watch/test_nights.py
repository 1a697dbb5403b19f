"""Nights leave a record with a heartbeat, one at a time, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import now
from pipeline.data.catalogue.watch_schema import NightRow, ScheduleRow
from pipeline.errors import ConfigError
from pipeline.stages.watch import nights
from pipeline.stages.watch.nights import (
    find_due_time,
    has_run_since,
    last_night,
    list_schedules,
    record_night,
    register_schedules,
)
from pipeline.stages.watch.schedule import Schedule


def newest(settings: Settings, schedule: str = "nightly") -> NightRow:
    with Catalogue.open(settings) as catalogue:
        night = last_night(catalogue, schedule)
    assert night is not None
    return night


def test_a_night_beats_while_it_runs_and_ends_with_its_summary(
    any_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nights, "BEAT_SECONDS", 0.05)
    with record_night(any_settings, "nightly") as night:
        begun = newest(any_settings)
        assert (begun.state, begun.ended_at) == ("running", None)
        with Catalogue.open(any_settings) as catalogue, catalogue.session() as session:
            session.execute(update(NightRow).values(beat_at=now() - timedelta(hours=1)))
        deadline = time.monotonic() + 240
        while now() - newest(any_settings).beat_at > timedelta(minutes=1):
            assert time.monotonic() < deadline
        night.summary = {"files": 3}
    ended = newest(any_settings)
    assert (ended.state, ended.summary["files"], ended.summary["failures"]) == ("done", 3, 0)
    assert ended.ended_at is not None


@pytest.mark.parametrize("raised", [True, False])
def test_a_night_with_failures_is_recorded_as_failed(settings: Settings, raised: bool) -> None:
    try:
        with record_night(settings, "nightly") as night:
            night.failures = 2
            if raised:
                raise ValueError("of Smith")
    except ValueError:
        pass
    ended = newest(settings)
    assert ended.state == "failed"
    assert ended.summary.get("errors") == (["ValueError"] if raised else None)
    assert "Smith" not in str(ended.summary)


def test_two_runs_of_one_schedule_never_overlap(settings: Settings) -> None:
    with record_night(settings, "nightly"):
        with pytest.raises(ConfigError, match="still running in this workspace"), record_night(settings, "nightly"):
            raise AssertionError
        with record_night(settings, "weekly"):
            pass
    assert newest(settings).state == "done"


def test_a_killed_night_frees_the_next_one_which_calls_it_crashed(settings: Settings) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom pipeline.config import Settings\n"
        "from pipeline.stages.watch.nights import record_night\n"
        "with record_night(Settings(workspace=Path(sys.argv[1])), 'nightly'):\n"
        "    print('begun', flush=True)\n    time.sleep(60)\n"
    )
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", code, str(settings.workspace)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout is not None and process.stdout.readline() == b"begun\n"
        os.kill(process.pid, signal.SIGKILL)
    killed = newest(settings)
    assert killed.state == "running"  # it could not say otherwise
    with record_night(settings, "nightly"):
        pass
    with Catalogue.open(settings) as catalogue, catalogue.reading() as session:
        assert session.get_one(NightRow, killed.id).state == "crashed"


def test_a_catalogue_that_cannot_be_written_does_not_stop_the_night(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (settings.workspace / "catalogue.db").write_bytes(b"this is not a database" * 100)
    with record_night(settings, "nightly") as night:
        night.summary = {"files": 1}


def test_schedules_are_expected_from_when_they_were_registered(any_settings: Settings) -> None:
    nightly, weekly = Schedule(roots=("/data/Smith",)), Schedule(name="weekly", flow="train", cron="0 4 * * 6")
    register_schedules(any_settings, [nightly, weekly])
    long_ago = now() - timedelta(days=9)
    with Catalogue.open(any_settings) as catalogue, catalogue.session() as session:
        session.execute(update(ScheduleRow).values(since=long_ago))
    register_schedules(any_settings, [nightly])  # unchanged: it keeps its beginning; the other one is over
    with Catalogue.open(any_settings) as catalogue:
        assert [(one.name, one.roots, since) for one, since in list_schedules(catalogue)] == [("nightly", (), long_ago)]
    register_schedules(any_settings, [nightly.model_copy(update={"cron": "30 2 * * *"}), weekly])
    with Catalogue.open(any_settings) as catalogue:
        assert all(since > long_ago for _, since in list_schedules(catalogue))


def test_a_date_names_the_firing_that_is_made_up_for(settings: Settings) -> None:
    register_schedules(settings, [Schedule(cron="30 1 * * *", timezone="Europe/Berlin")])
    due = find_due_time(settings, "nightly", date(2026, 7, 11))
    assert f"{due}" == "2026-07-10 23:30:00"
    assert f"{find_due_time(settings, 'unknown', date(2026, 7, 11))}" == "2026-07-11 00:00:00"
    with record_night(settings, "nightly", due):
        pass
    with Catalogue.open(settings) as catalogue:
        assert has_run_since(catalogue, "nightly", due)
        assert not has_run_since(catalogue, "nightly", now() + timedelta(hours=1))
    with pytest.raises(ConfigError, match="has not come yet"):
        find_due_time(settings, "nightly", now().date() + timedelta(days=2))
