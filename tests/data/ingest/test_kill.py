"""`kill -9` at any moment of an ingest, then ingest again: catalogue, crosswalk and store are those of a quiet run.

Each ingest runs in a child forked for it, which sends itself SIGKILL at its n-th event. Events are the moments before
and after each SQL statement, before each commit, and before each file is opened, renamed, made or removed.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import Engine, event, update

from pipeline.config import Settings
from pipeline.data.catalogue.admission import Outcome
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import SourceFile
from pipeline.data.ingest.enter_batch import Record, _note_files, enter
from pipeline.data.ingest.ingest import ingest
from pipeline.dicom.identity.crosswalk import Crosswalk

KILLS = 24
FILE_EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.truncate", "os.rmdir", "os.chmod"}
State = Callable[[Settings], dict[str, Any]]


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked child; return its wait status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    status = 1
    try:
        work()
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


class Events:
    """Counts events in this process and kills it at a given one; 0 never kills."""

    def __init__(self, fatal: int) -> None:
        self.count, self._fatal = 0, fatal
        sys.addaudithook(lambda name, _: self.tick() if name in FILE_EVENTS else None)
        for name in ("before_cursor_execute", "after_cursor_execute"):
            event.listen(Engine, name, lambda *_: self.tick())
        event.listen(Engine, "commit", lambda _: self.tick())

    def tick(self) -> None:
        self.count += 1
        if self.count == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)


def count_events(folder: Path, settings: Settings, note: Path) -> int:
    def work() -> None:
        events = Events(0)
        ingest([folder], settings)
        note.write_text(str(events.count))

    assert in_child(work) == 0
    return int(note.read_text())


def kill_at(fatal: int, folder: Path, settings: Settings) -> int:
    def work() -> None:
        Events(fatal)
        ingest([folder], settings)

    return in_child(work)


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {
        name: (sorted(set(one[name]) - set(other[name])), sorted(set(other[name]) - set(one[name])))
        for name in one
        if one[name] != other[name]
    }


@pytest.fixture
def small_batches(in_process: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.ingest.write_pixels._BATCH", 7)
    monkeypatch.setattr("pipeline.data.ingest.ingest._LOOKUP", 11)


def test_killed_anywhere_and_resumed_equals_undisturbed(
    small_batches: None, busy_folder: Path, tmp_path: Path, other_settings: Callable[[str], Settings], state_of: State
) -> None:
    quiet = other_settings("quiet")
    total = count_events(busy_folder, quiet, tmp_path / "count")
    assert total > 200
    expected = state_of(quiet)
    draw = random.Random(7)
    killed = 0
    for kill in range(KILLS):
        width = total / KILLS
        fatal = 1 + int(kill * width + draw.random() * width)
        settings = other_settings(f"killed{kill}")
        status = kill_at(fatal, busy_folder, settings)
        killed += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert in_child(lambda settings=settings: ingest([busy_folder], settings)) == 0, fatal
        assert differences(expected, state_of(settings)) == {}, f"killed at event {fatal} of {total}"
        shutil.rmtree(settings.workspace)
    # Threads make the number of events vary a little: a few of the last points may lie behind the end.
    assert killed >= KILLS - 2


def test_killed_again_and_again(
    small_batches: None, busy_folder: Path, other_settings: Callable[[str], Settings], state_of: State
) -> None:
    quiet, disturbed = other_settings("quiet"), other_settings("disturbed")
    assert in_child(lambda: ingest([busy_folder], quiet)) == 0
    draw = random.Random(11)
    for _ in range(12):
        kill_at(draw.randint(1, 400), busy_folder, disturbed)
    assert in_child(lambda: ingest([busy_folder], disturbed)) == 0
    assert differences(state_of(quiet), state_of(disturbed)) == {}


@pytest.mark.slow
def test_the_comparison_would_notice_a_wrong_order(
    small_batches: None,
    busy_folder: Path,
    tmp_path: Path,
    other_settings: Callable[[str], Settings],
    state_of: State,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Negative control: files are recorded before their content is entered, so a kill in between loses it."""

    def noted_first(catalogue: Catalogue, crosswalk: Crosswalk, pseudonyms: Any, batch: list[Record]) -> Any:
        with catalogue.session() as session:
            _note_files(session, batch, [Outcome.ADDED] * len(batch))
            for record in batch:  # as if the store were never asked
                noted = update(SourceFile).where(SourceFile.path_id == record.seen.path_id)
                session.execute(noted.values(outcome="not-dicom"))
        return enter(catalogue, crosswalk, pseudonyms, batch)

    quiet = other_settings("quiet")
    monkeypatch.setattr("pipeline.data.ingest.ingest.enter", noted_first)
    total = count_events(busy_folder, quiet, tmp_path / "count")
    expected, noticed = state_of(quiet), 0
    for kill in range(12):
        settings = other_settings(f"killed{kill}")
        kill_at(int(total * (0.3 + 0.05 * kill)), busy_folder, settings)
        assert in_child(lambda settings=settings: ingest([busy_folder], settings)) == 0
        noticed += differences(expected, state_of(settings)) != {}
    assert noticed >= 3


@pytest.mark.slow
def test_killed_with_its_workers_running(
    busy_folder: Path, other_settings: Callable[[str], Settings], state_of: State
) -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline.config import Settings;"
        "from pipeline.data.ingest import ingest, write_pixels; write_pixels._BATCH = 5;"
        "ingest.ingest([Path(sys.argv[1])], Settings.model_validate_json(sys.argv[2]),"
        "              lambda *_: print('batch', flush=True))"
    )
    quiet, disturbed = other_settings("quiet"), other_settings("disturbed")
    ingest([busy_folder], quiet)
    for batches in (0, 1, 2, 3):
        command = [sys.executable, "-c", code, str(busy_folder), disturbed.model_dump_json()]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
            for _ in range(batches):
                running.stdout.readline()
            running.kill()
    ingest([busy_folder], disturbed)
    assert differences(state_of(quiet), state_of(disturbed)) == {}
