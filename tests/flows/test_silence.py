"""Prefect sends nothing home, stores JSON and stays in the workspace, without any setting in the environment."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_importing_a_flow_settles_prefect(tmp_path: Path) -> None:
    code = (
        "import flows.nightly, os\n"
        "from prefect.settings import get_current_settings\n"
        "settings = get_current_settings()\n"
        "assert settings.server.analytics_enabled is False\n"
        "assert os.environ['DO_NOT_TRACK'] == '1'\n"
        "assert settings.results.default_serializer == 'json'\n"
        "assert str(settings.home) == os.environ['NIGHTREAD_WORKSPACE'] + '/prefect', settings.home\n"
        "assert settings.home.is_dir()\n"
        "import psutil, threading\n"
        "assert psutil.Process().children() == [] and threading.active_count() == 1\n"
        "assert not psutil.Process().net_connections()\n"
    )
    prefixes = ("PREFECT_", "DO_NOT_TRACK")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(prefixes)}
    environment["NIGHTREAD_WORKSPACE"] = str(tmp_path / "deep" / "workspace")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Failed to create" not in done.stderr
    # Prefect needs its home and its private database before its first flow; an import leaves nothing else behind.
    database = tmp_path / "deep" / "workspace" / "prefect" / "prefect.db"
    assert [file for file in tmp_path.rglob("*") if not file.is_dir()] == [database]
    assert (database.stat().st_size, stat.S_IMODE(database.stat().st_mode)) == (0, 0o600)


def test_importing_the_package_writes_nothing(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment.pop("NIGHTREAD_WORKSPACE", None)
    code = "import flows, flows.request, flows.overhead, sys; assert 'prefect' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(tmp_path.iterdir()) == []
