"""Nights that a fault befalls end in a clear state, and the next night leaves what an undisturbed one leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.stages.reliability.faulty_nights import FAULTS, FaultyNight, show_faults
from pipeline.stages.reliability.forked import beside

ROOT = Path(__file__).resolve().parents[3]
FULL = ("MachineError", 12, "No space left on device.")


def night(**changes: object) -> FaultyNight:
    values = {"fault": "disk-full", "share": 0.5, "phase": "score", "failure": FULL, "state": "failed"}
    values |= {"alerts": ("failed:nightly",), "healed_in": 2.0, "differences": ()}
    return FaultyNight(**{**values, **changes})  # type: ignore[arg-type]


def test_a_night_is_clear_if_it_went_on_or_ended_with_our_error_and_an_alert() -> None:
    assert night().is_clear
    assert night(failure=(), alerts=()).is_clear
    assert not night(alerts=()).is_clear
    assert not night(failure=("UnforeseenError", 70, "KeyError at x.py:1.")).is_clear


def test_the_table_counts_by_fault() -> None:
    nights = [night(), night(failure=(), alerts=()), night(fault="pacs-gone", differences=("outbox: 1 missing",))]
    first, second = show_faults(nights)
    assert (first["fault"], first["nights"], first["went on"], first["same final state"]) == ("disk-full", 2, 1, 2)
    assert first["ended with (exit code)"] == "1 MachineError (12)" and first["alerts"] == "1 failed:nightly"
    assert (second["fault"], second["clear"], second["same final state"]) == ("pacs-gone", 1, 0)
    assert show_faults([]) == []


def test_a_process_beside_a_block_is_there_from_when_it_is_ready_until_its_end(tmp_path: Path) -> None:
    def work(ready: object) -> None:
        (tmp_path / "begun").touch()
        ready()  # type: ignore[operator]
        import time

        time.sleep(60)

    with beside(work) as child:
        assert (tmp_path / "begun").exists() and Path(f"/proc/{child}").exists()
    assert not Path(f"/proc/{child}").exists()


@pytest.mark.slow
def test_faulty_nights_are_clear_and_heal(tmp_path: Path) -> None:
    """In a process of its own: the parent of forked nights must not have computed with torch before."""
    faults = [option for fault in FAULTS for option in ("--fault", fault)]
    command = [sys.executable, "-m", "pipeline.cli", "benchmark", "reliability", *faults, "--nights", "1", "--json"]
    done = subprocess.run([*command, "--folder", str(tmp_path)], capture_output=True, text=True, cwd=ROOT, timeout=1800)
    if "cannot be mounted" in done.stderr:
        pytest.skip("this user may not mount a small file system")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(done.stdout)
    assert [row["fault"] for row in rows] == list(FAULTS)
    assert all(row["nights"] == row["clear"] == row["same final state"] == 1 for row in rows)
