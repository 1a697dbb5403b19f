"""Fixtures of the phantom tests."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def dciodvfy() -> Callable[[Path], list[str]]:
    """The errors that `dciodvfy` finds in a file; skips where the tool is missing."""
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")

    def errors(path: Path) -> list[str]:
        done = subprocess.run([tool, str(path)], capture_output=True, text=True, timeout=60, check=False)
        lines = (done.stdout + done.stderr).splitlines()
        assert lines, "dciodvfy said nothing, not even the object's name"
        return [line for line in lines if line.startswith("Error")]

    return errors
