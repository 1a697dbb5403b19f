"""The command line, run in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import group

Run = Callable[..., Result]


@pytest.fixture
def nightread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `nightread ARGUMENTS` in an empty folder; `-w` defaults to a workspace in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NIGHTREAD_WORKSPACE", raising=False)

    def run(*arguments: object, workspace: Path | None = None) -> Result:
        where = ["-w", str(workspace or tmp_path / "workspace")]
        return CliRunner().invoke(group, [*where, *map(str, arguments)])

    return run
