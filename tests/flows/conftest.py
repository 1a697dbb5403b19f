"""Records that the flows left in Prefect, read from the embedded server of this test session."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Settings


@pytest.fixture(scope="session")
def prefect_home() -> Path:
    """The folder where Prefect keeps its files."""
    return Path(os.environ["PREFECT_HOME"])


@pytest.fixture(scope="session")
def flow_runs() -> Callable[[], dict[str, Any]]:
    """Return every flow run by its name."""

    def read() -> dict[str, Any]:
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            return {run.name: run for run in client.read_flow_runs(limit=200)}

    return read


@pytest.fixture(scope="session")
def night_logs() -> Callable[[], list[list[str]]]:
    """Return the log lines of each night, in the order of writing, once the last night's end has arrived."""

    def read() -> list[list[str]]:
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

        with get_client(sync_client=True) as client:
            nights = [run for run in client.read_flow_runs(limit=200) if run.name.startswith("night of")]
            for _ in range(480):  # logs are sent in the background
                filters = [LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])) for run in nights]
                logs = [sorted(client.read_logs(one), key=lambda log: log.timestamp) for one in filters]
                lines = [[log.message for log in night] for night in logs]
                if all(any("The night has ended" in line for line in night) for night in lines):
                    break
                time.sleep(0.5)
        return lines

    return read


@pytest.fixture(scope="session")
def artefacts() -> Callable[[], dict[str, list[Any]]]:
    """Return the artefacts by key, oldest first."""

    def read() -> dict[str, list[Any]]:
        from prefect.client.orchestration import get_client

        by_key: dict[str, list[Any]] = {}
        with get_client(sync_client=True) as client:
            for artefact in sorted(client.read_artifacts(limit=200), key=lambda item: item.created):
                by_key.setdefault(str(artefact.key), []).append(artefact)
        return by_key

    return read


@pytest.fixture(scope="session")
def night(phantom_night: Any, new_hospital: Callable[[], Settings]) -> tuple[Settings, dict[str, Any]]:
    """One night from an empty workspace: its settings and its report."""
    from flows.nightly import run_nightly

    settings = new_hospital()
    report = run_nightly(
        [str(phantom_night.archive), str(phantom_night.inbox)],
        [str(phantom_night.config)],
        [str(phantom_night.labels)],
        str(settings.workspace),
    )
    return settings, report
