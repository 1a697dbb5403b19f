"""Fixtures that every room shares. Threads and telemetry are set before anything heavy is imported."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["DO_NOT_TRACK"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "120"

from pathlib import Path

import pytest

from pipeline.config import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of an empty workspace under the test's own folder."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    return Settings(workspace=workspace)
