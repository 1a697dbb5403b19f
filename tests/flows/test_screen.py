"""The screen of a night run by hand without a network: the page, and nothing of the machinery beneath it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow
def test_a_night_shows_its_page_and_nothing_else(
    phantom_night: Any, new_hospital: Any, cut_off: Any, tmp_path: Path
) -> None:
    night, workspace = phantom_night, new_hospital().workspace
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_"))}
    code = cut_off.code + "from pipeline.cli import main\nmain()\n"
    command = [*cut_off.prefix, sys.executable, "-c", code, "-w", str(workspace), "nightly"]
    done = subprocess.run(
        [*command, night.archive, night.inbox, "-c", night.config, "-l", night.labels],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("# The night")
    assert "The 2 most unusual of 6 flagged" in done.stdout
    assert "AUROC" in done.stdout
    noise = [line for line in done.stderr.splitlines() if line.strip() and "it/s" not in line and "images" not in line]
    assert noise == []
    assert list(tmp_path.iterdir()) == []  # nothing is left in the working folder
