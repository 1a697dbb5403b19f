"""A workspace is a folder: copied, moved or restored, it works where it lies, and the original is not touched."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Settings
from pipeline.stages.operations.backup import back_up
from pipeline.stages.operations.restore import restore
from pipeline.tracking.relocate import artifact_root

A_NIGHT = {"skipped": 54, "version": "1", "studies": 6, "flagged": 2, "evaluated": True}


def copy(original: Path, tmp_path: Path) -> Path:
    subprocess.run(["cp", "-a", original, tmp_path / "a copy"], check=True)
    return tmp_path / "a copy"


def move(original: Path, tmp_path: Path) -> Path:
    first = tmp_path / "first"
    shutil.copytree(original, first)
    return first.rename(tmp_path / "moved")


def save_and_restore(original: Path, tmp_path: Path) -> Path:
    file, identity = tmp_path / "saved.tar", tmp_path / "identity.tar"
    back_up(Settings(workspace=original), file, identity)
    restore(file, tmp_path / "restored", identity)
    return tmp_path / "restored"


def places_in(workspace: Path) -> str:
    """Return every text of the workspace's databases, and of its small files."""
    texts = []
    for file in sorted(path for path in workspace.rglob("*") if path.is_file()):
        if file.suffix == ".db":
            with sqlite3.connect(file) as store:
                texts.append("\n".join(store.iterdump()))
        elif file.suffix in {".json", ".yaml", ".csv", ".md"}:
            texts.append(file.read_text(encoding="utf-8"))
    return "\n".join(texts)


@pytest.mark.parametrize("way", [copy, move, save_and_restore])
def test_a_night_elsewhere_leaves_the_original_as_it_was(
    way: Callable[[Path, Path], Path],
    trained: Any,
    phantom_night: Any,
    hashes: Callable[[Path], dict[str, str]],
    night: Callable[[Settings, Any], dict[str, Any]],
    tmp_path: Path,
) -> None:
    original = trained.settings.workspace
    before = hashes(original)
    elsewhere = way(original, tmp_path)
    done = night(Settings(workspace=elsewhere), phantom_night)
    assert done.pop("run").parent == elsewhere / "runs"
    assert done == A_NIGHT
    assert hashes(original) == before
    assert not (tmp_path / "first").exists()  # nor is anything made again where it was moved from
    places = places_in(elsewhere)
    assert str(original) not in places and artifact_root(elsewhere) in places


def test_a_copy_of_the_copy_is_as_good(
    copied: Settings, trained: Any, hashes: Callable[[Path], dict[str, str]], tmp_path: Path
) -> None:
    from pipeline.tracking.registry import find_champion

    first = find_champion(copied, "phantom-mr")
    shutil.copytree(copied.workspace, tmp_path / "again")
    before = hashes(copied.workspace)
    again = find_champion(Settings(workspace=tmp_path / "again"), "phantom-mr")
    assert first is not None and again is not None and again.sha256 == first.sha256 == trained.report.run.sha256
    assert Path(again.path).parent == tmp_path / "again" / "runs"
    assert hashes(copied.workspace) == before


@pytest.mark.slow
def test_a_night_at_the_command_line_in_a_copy(
    trained: Any, phantom_night: Any, hashes: Callable[[Path], dict[str, str]], tmp_path: Path
) -> None:
    """With Prefect's home inside, as a user has it: two nights in the original, one in a copy."""
    environment = {k: v for k, v in os.environ.items() if k not in {"PREFECT_HOME", "NIGHTREAD_WORKSPACE"}}

    def nightly(workspace: Path) -> dict[str, Any]:
        command = [sys.executable, "-c", "from pipeline.cli import main; main()", "-w", str(workspace), "nightly"]
        asked = [str(phantom_night.archive), str(phantom_night.inbox), "-c", str(phantom_night.config), "--json"]
        done = subprocess.run(
            [*command, *asked, "-l", str(phantom_night.labels)],
            capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=500,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    original = tmp_path / "original"
    shutil.copytree(trained.settings.workspace, original)
    assert [part["studies"] for part in nightly(original)["scored"]] == [6]
    before = hashes(original)
    again = nightly(copy(original, tmp_path))
    assert again["failures"] == [] and [part["studies"] for part in again["scored"]] == [0]
    assert len(again["evaluated"]) == 1
    assert hashes(original) == before
    assert (tmp_path / "a copy" / "prefect").is_dir()
