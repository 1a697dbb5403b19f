"""Artefacts of evaluations in MLflow: figures, tables and pages, which retention may remove; the numbers stay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlparse

from pipeline.config import Settings
from pipeline.tracking.experiment import connect

NAME, PARENT, REMOVED = "mlflow.runName", "mlflow.parentRunId", "artefacts_removed_on"
PREFIX = "evaluate "
PAGE = 500


@dataclass(frozen=True, slots=True)
class TrackedEvaluation:
    """One evaluation: its MLflow run, that of its training, the set, when it ended (UTC), and its folder."""

    run_id: str
    training_run: str
    set_name: str
    ended_at: datetime
    folder: Path


def list_evaluations(settings: Settings) -> Iterator[TrackedEvaluation]:
    """Yield the finished evaluations whose artefacts are in the workspace and have not been removed.

    Raises:
        ConfigError: the tracking store cannot be opened.
    """
    connect(settings)
    from mlflow import MlflowClient

    client = MlflowClient()
    experiments = [one.experiment_id for one in client.search_experiments()]
    token = None
    while True:
        query = f"tags.`{NAME}` LIKE '{PREFIX}%' AND attributes.status = 'FINISHED'"
        page = client.search_runs(experiments, query, max_results=PAGE, page_token=token)
        for run in page:
            place, tags = urlparse(run.info.artifact_uri), run.data.tags
            folder = Path(unquote(place.path))
            if place.scheme in ("", "file") and folder.is_relative_to(settings.workspace) and REMOVED not in tags:
                ended = datetime.fromtimestamp(run.info.end_time / 1000, UTC).replace(tzinfo=None)
                name = tags[NAME].removeprefix(PREFIX)
                yield TrackedEvaluation(run.info.run_id, tags.get(PARENT, ""), name, ended, folder)
        if not (token := page.token):
            return


def tag_removed(settings: Settings, run_ids: list[str], day: str) -> None:
    """Say of runs that their artefacts were removed on a day."""
    connect(settings)
    from mlflow import MlflowClient

    for run_id in run_ids:
        MlflowClient().set_tag(run_id, REMOVED, day)
