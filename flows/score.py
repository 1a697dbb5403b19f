"""Flow `score`: score the night's studies with every champion and flag. `python -m flows.score`"""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact

from flows import WORKSPACE
from flows.policies import HOUR, STEADY
from pipeline.config import Settings
from pipeline.stages.flagged import flagged_list
from pipeline.stages.score import detectors_to_run
from pipeline.stages.score import score as score_stage
from pipeline.types import RunRef


@task(name="score-route", timeout_seconds=12 * HOUR, **STEADY)
def score_route(run: dict[str, str], workspace: str) -> dict[str, Any]:
    """Score with one detector; studies that it has scored already are passed over, so a retry repeats nothing."""
    return score_stage(RunRef(**run), Settings.load(workspace)).to_json()


@flow(name="score", flow_run_name="score of {workspace}", persist_result=False)
def score(workspace: str) -> list[dict[str, Any]]:
    """Score what is new on every route and publish the flagged list."""
    settings = Settings.load(workspace)
    reports = [score_route({"path": run.path, "sha256": run.sha256}, workspace) for run in detectors_to_run(settings)]
    create_table_artifact(key="flagged", table=flagged_list(settings), description="Flagged scans, most unusual first")
    return reports


if __name__ == "__main__":
    score(str(WORKSPACE))
