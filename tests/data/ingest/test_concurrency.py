"""Two concurrent ingests of overlapping folders end in the same state as one after the other."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline.config import Settings
from pipeline.data.ingest.ingest import ingest

State = Callable[[Settings], dict[str, Any]]


def start(work: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def without_files(state: dict[str, Any]) -> dict[str, Any]:
    # Which of two files brought an object depends on who was first; what is there does not.
    return {name: rows for name, rows in state.items() if name != "catalogue.source_files"}


@pytest.mark.parametrize("batch", [3, 100])
def test_overlapping_folders(
    in_process: ModuleType,
    tmp_path: Path,
    write_file: Callable[..., Path],
    other_settings: Callable[[str], Settings],
    state_of: State,
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
) -> None:
    monkeypatch.setattr("pipeline.data.ingest.write_pixels._BATCH", batch)
    inbox = tmp_path / "inbox"
    for series in range(1, 5):
        for number in range(1, 9):
            write_file(inbox / f"s{series}" / f"{number}.dcm", number, series)
            write_file(inbox / f"s{series}" / f"copy{number}.dcm", number, series, rle=True)
    (inbox / "garbage").write_bytes(b"none " * 100)
    one, together = other_settings("one"), other_settings("together")
    assert os.waitpid(start(lambda: ingest([inbox], one)), 0)[1] == 0
    halves = ([inbox], [inbox / "s4", inbox / "s3", inbox / "s2"], [inbox])
    children = [start(lambda paths=paths: ingest(paths, together)) for paths in halves]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    expected, actual = state_of(one), state_of(together)
    assert without_files(expected) == without_files(actual)
    assert len(expected["catalogue.source_files"]) == len(actual["catalogue.source_files"]) == 65
    assert ingest([inbox], together).skipped == 65
