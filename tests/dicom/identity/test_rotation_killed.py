"""A rotation that is killed at any statement is finished by running it again, and no patient changes sets."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from pipeline.config import Settings
from pipeline.data.catalogue import rotation
from pipeline.dicom.identity.pseudonyms import next_key_file

_EVENTS = ("before_cursor_execute", "after_cursor_execute", "commit")


def _dump(workspace: Path) -> str:
    """Return the whole catalogue as text, without opening it through the code under test."""
    database = sqlite3.connect(workspace / "catalogue.db")
    text = "\n".join(database.iterdump())
    database.close()
    return text


def _rotate_killed(settings: Settings, at: int) -> tuple[int, int]:
    """Rotate in a child that kills itself at the `at`-th event of its steps; return its status and events."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        heard = 0

        def count(*_: Any) -> None:
            nonlocal heard
            heard += 1
            if heard == at:
                os.kill(os.getpid(), signal.SIGKILL)

        for name in _EVENTS:
            event.listen(Engine, name, count)
        code = 3
        try:
            rotation.rotate(settings)
            os.write(writing, str(heard).encode())
            code = 0
        finally:
            os._exit(code)  # never back into pytest
    os.close(writing)
    status = os.waitpid(child, 0)[1]
    with os.fdopen(reading) as answer:
        return os.waitstatus_to_exitcode(status), int(answer.read() or 0)


@pytest.fixture
def events(hospital: Any, tmp_path: Path) -> int:
    """Number of events in an undisturbed rotation of the hospital."""
    code, heard = _rotate_killed(_copy(hospital.settings, tmp_path / "undisturbed"), at=0)
    assert code == 0 and heard > 150  # else the events are not heard, and the kills below would never happen
    return heard


def _copy(settings: Settings, folder: Path) -> Settings:
    shutil.copytree(settings.workspace, folder)
    return Settings(workspace=folder)


def _check(hospital: Any, folder: Path, at: int) -> None:
    settings = _copy(hospital.settings, folder)
    members = hospital.membership()
    old = {name for person in hospital.people for ids in person for name in (ids.patient_id, ids.instance_id)}
    assert _rotate_killed(settings, at)[0] == -signal.SIGKILL
    started = next_key_file(settings).exists()
    if started:
        rotation.rotate(settings)
    after = type(hospital)(settings, hospital.people)
    assert after.membership() == members  # opens the crosswalk with the key: they belong together
    text = _dump(folder)
    left = {name for name in old if name in text}
    assert not left if started else left == old  # killed before the new key was there: nothing has happened
    shutil.rmtree(folder)


def test_a_kill_at_a_statement_in_every_step_is_resumed(hospital: Any, events: int, tmp_path: Path) -> None:
    for at in range(events, 0, -max(1, events // 12)):
        _check(hospital, tmp_path / f"killed-{at}", at)


@pytest.mark.slow
def test_a_kill_at_every_statement_is_resumed(hospital: Any, events: int, tmp_path: Path) -> None:
    for at in range(1, events + 1):
        _check(hospital, tmp_path / f"killed-{at}", at)


def test_a_second_kill_while_resuming_is_resumed(hospital: Any, events: int, tmp_path: Path) -> None:
    members = hospital.membership()
    for first, second in ((events // 2, 30), (events - 2, 20), (events // 2, events // 3)):
        settings = _copy(hospital.settings, tmp_path / f"twice-{first}-{second}")
        for at in (first, second):
            assert _rotate_killed(settings, at)[0] == -signal.SIGKILL
        if next_key_file(settings).exists():
            rotation.rotate(settings)
        assert type(hospital)(settings, hospital.people).membership() == members
