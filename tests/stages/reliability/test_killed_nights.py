"""Nights that are killed and run again leave what an undisturbed night leaves, and the comparison would notice."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.review_schema import ReadingEntry
from pipeline.data.store.pixel_store import PixelStore
from pipeline.stages.reliability.final_state import compare, read_state
from pipeline.stages.reliability.forked import run_forked
from pipeline.stages.reliability.killed_nights import Kill, show_kills

ROOT = Path(__file__).resolve().parents[3]


def test_a_child_returns_its_marks_and_result_or_its_error() -> None:
    done = run_forked(lambda mark: [mark("one"), mark("two"), 7][-1])
    assert (done.status, done.result, done.phase, done.error) == (0, 7, "two", "")
    failed = run_forked(lambda _: 1 // 0)
    assert failed.status == 1 and "ZeroDivisionError" in failed.error and failed.result is None


def test_a_child_is_killed_at_its_moment() -> None:
    killed = run_forked(lambda mark: [mark("begun"), time.sleep(60)][-1], after=0.3)
    assert killed.status == -signal.SIGKILL and killed.phase == "begun"
    assert 0.3 <= killed.seconds < 30


def test_the_comparison_notices_what_is_missing(scored: Any, tmp_path: Path) -> None:
    shutil.copytree(scored.settings.workspace, tmp_path / "other")
    other = Settings(workspace=tmp_path / "other")
    expected, nowhere = read_state(scored.settings, tmp_path / "outbox"), tmp_path / "outbox"
    assert compare(expected, read_state(other, nowhere)) == []
    with Catalogue.open(other) as catalogue, catalogue.session() as session:
        session.execute(delete(ReadingEntry))
    store = PixelStore(other.store)
    store.delete(next(iter(store.keys())))
    for file in other.runs.glob("*/heatmaps/*.npz"):
        file.unlink()
    parts = {sentence.partition(":")[0] for sentence in compare(expected, read_state(other, nowhere))}
    assert parts == {"reading_list", "pixels", "heatmaps"}


def test_the_table_counts_by_part_of_the_night() -> None:
    kills = [Kill("score", 1.0, 2.0, ()), Kill("score", 1.5, 3.0, ("mlflow: 1 missing",)), Kill("push", 3.0, 1.0, ())]
    rows = {row["killed during"]: (row["kills"], row["same final state"]) for row in show_kills(kills)}
    assert rows == {"score": (2, 1), "push": (1, 1), "whole night": (3, 2)}
    assert show_kills([]) == []


@pytest.mark.slow
def test_killed_nights_end_in_the_same_state(tmp_path: Path) -> None:
    """In a process of its own: the parent of forked nights must not have computed with torch before."""
    command = [sys.executable, "-m", "pipeline.cli", "benchmark", "reliability", "--kills", "4", "--folder"]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "whole night" in done.stdout
