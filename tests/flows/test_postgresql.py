"""Prefect's own records in PostgreSQL: the way out where SQLite says "database is locked"."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.dicom.phantom.folder import write_phantoms


@pytest.mark.slow
def test_a_flow_runs_with_prefect_on_postgresql(new_database: Callable[[], str], tmp_path: Path) -> None:
    """Two processes, one after the other: the second finds the tables, and both leave a completed run."""
    import psycopg

    url, planted = new_database(), "Zyxwname"
    write_phantoms(tmp_path / planted, 2, "MR", 0, 1, size=32, family=planted)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment["NIGHTREAD_WORKSPACE"] = str(tmp_path / "ws")
    environment["PREFECT_API_DATABASE_CONNECTION_URL"] = url.replace("postgresql://", "postgresql+asyncpg://")
    for _ in range(2):
        command = [sys.executable, "-m", "flows.ingest", str(tmp_path / planted)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path.cwd(), timeout=500)
        assert done.returncode == 0, done.stderr[-3000:]
    with psycopg.connect(url) as connection:
        runs = connection.execute("SELECT name, state_type::text, parameters::text FROM flow_run").fetchall()
    assert [state for _, state, _ in runs] == ["COMPLETED", "COMPLETED"]
    assert all(name.startswith("ingest of 1 root") for name, _, _ in runs)
    assert planted not in str(runs)
    assert not list((tmp_path / "ws" / "prefect").glob("*.db"))  # nothing went to SQLite beside it
