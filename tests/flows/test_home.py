"""Prefect's home folder is created private, with its database."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from flows.home import ELSEWHERE, make_home


@pytest.mark.parametrize("elsewhere", ["", *ELSEWHERE])
def test_home_and_database_are_their_owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: str) -> None:
    for name in ELSEWHERE:
        monkeypatch.delenv(name, raising=False)
    if elsewhere:
        monkeypatch.setenv(elsewhere, "http://127.0.0.1:1/api")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "workspace" / "prefect"))
    home = make_home()
    assert make_home() == home
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (home, home.parent)} == {0o700}
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()}
    assert modes == ({} if elsewhere else {"prefect.db": 0o600})
