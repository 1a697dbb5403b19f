"""One inbox for a permanent listener and a nightly pull: nothing is fetched, moved or counted twice."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydicom import Dataset

from pipeline.dicom.network.config import PullConfig
from pipeline.dicom.network.inbox import Inbox
from pipeline.errors import CatalogueError
from pipeline.stages.pacs.pull import pull

STUDY = "1.2.3"


def add(inbox: Inbox, number: int) -> None:
    with inbox.draft([b"object %d" % number]) as draft:
        inbox.keep(draft, STUDY, f"{STUDY}.{number}")


def held(folder: Path, state: str) -> list[Path]:
    return sorted(path for path in (folder / state).rglob("*.dcm"))


def test_what_the_listener_has_is_not_fetched(pacs: Callable, listen: Callable, datasets: list[Dataset]) -> None:
    listening, running = listen(), pacs()
    assert set(listening.send(*datasets[:5])) == {0}
    asked = PullConfig(source=running.source, inbox=listening.inbox, everything=True, reserve_bytes=0)
    report = pull(asked)
    assert (report.studies, report.objects, report.failed, report.notes) == (4, {"stored": 7}, 0, [])
    assert listening.send(datasets[0], datasets[-1]) == [0, 0]
    assert len(held(listening.inbox, "complete")) == 12
    assert held(listening.inbox, "open") == held(listening.inbox, "quarantine") == []
    with Inbox.open(listening.inbox, "pull"), pytest.raises(CatalogueError, match="nightread pull"):
        pull(asked)


def test_both_move_one_study_at_the_same_time(tmp_path: Path) -> None:
    with Inbox.open(tmp_path) as listener, Inbox.open(tmp_path, "pull") as puller:

        def fill(inbox: Inbox, first: int) -> None:
            for number in range(first, first + 60):
                add(inbox, number)
                if number % 4 == 0:
                    inbox.finish(STUDY)
            inbox.finish(STUDY)

        threads = [threading.Thread(target=fill, args=each) for each in ((listener, 0), (puller, 30))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert listener.waiting() == puller.waiting() == 0
    assert len(held(tmp_path, "complete")) == 90  # half of each were brought by both
    assert held(tmp_path, "open") == held(tmp_path, "quarantine") == []
    assert [*(tmp_path / "part").iterdir(), *(tmp_path / "part-pull").iterdir()] == []


def test_the_listener_waits_for_a_study_that_a_pull_still_fills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = 0.0  # of the clock, in seconds
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + ahead, time=lambda: time.time() + ahead)
    monkeypatch.setattr("pipeline.dicom.network.inbox.time", clock)
    with Inbox.open(tmp_path) as listener, Inbox.open(tmp_path, "pull") as puller:
        add(listener, 1)
        ahead = 1000.0
        add(puller, 2)
        (study,) = (tmp_path / "open").iterdir()
        os.utime(study, (clock.time(), clock.time()))
        assert listener.hand_over(500) == []
        ahead = 2000.0
        assert [done.objects for done in listener.hand_over(500)] == [2]


def test_a_time_in_the_future_holds_nothing_back(tmp_path: Path) -> None:
    with Inbox.open(tmp_path) as listener:
        add(listener, 1)
        (study,) = (tmp_path / "open").iterdir()
        os.utime(study, (time.time() + 1e6, time.time() + 1e6))
        time.sleep(0.1)
        assert len(listener.hand_over(0.05)) == 1


def test_half_written_files_of_the_other_role_are_left_alone(tmp_path: Path) -> None:
    with Inbox.open(tmp_path) as listener, listener.draft([b"half"]) as draft:
        with Inbox.open(tmp_path, "pull"):
            assert draft.exists()
        add(listener, 1)
