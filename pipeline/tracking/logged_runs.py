"""Everything that the tracking store holds of a workspace, for comparisons."""

from __future__ import annotations

from typing import Any

from pipeline.config import Settings
from pipeline.tracking.experiment import connect


def list_logged_runs(settings: Settings) -> list[dict[str, Any]]:
    """Return every run that is not deleted: experiment, name, status, metrics of its own, and files of its own.

    Raises:
        ConfigError: the tracking store cannot be opened.
    """
    connect(settings)
    from mlflow import MlflowClient

    client = MlflowClient()
    names = {one.experiment_id: one.name for one in client.search_experiments()}
    rows = []
    for run in client.search_runs(list(names), max_results=50_000):
        metrics = {name: value for name, value in sorted(run.data.metrics.items()) if not name.startswith("system/")}
        files = sorted(one.path for one in client.list_artifacts(run.info.run_id))
        about = {"experiment": names[run.info.experiment_id], "name": run.info.run_name, "status": run.info.status}
        rows.append({**about, "metrics": metrics, "files": files})
    return rows
