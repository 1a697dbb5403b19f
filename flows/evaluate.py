"""Flow `evaluate`: measure every champion on labelled scans. `python -m flows.evaluate`"""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact

from flows import WORKSPACE
from flows.policies import HOUR, STEADY
from pipeline.config import Settings
from pipeline.stages.evaluate import evaluate as evaluate_stage
from pipeline.stages.score import detectors_to_run
from pipeline.types import RunRef


@task(name="evaluate-route", timeout_seconds=4 * HOUR, **STEADY)
def evaluate_route(run: dict[str, str], workspace: str) -> dict[str, Any]:
    """Evaluate one detector on its develop set."""
    report = evaluate_stage(RunRef(**run), Settings.load(workspace))
    return {"run": run["path"], "summary": report.summary(), "markdown": report.to_markdown()}


@flow(name="evaluate", flow_run_name="evaluate {workspace}", persist_result=False)
def evaluate(workspace: str) -> list[dict[str, Any]]:
    """Evaluate every champion and publish the reports."""
    runs = detectors_to_run(Settings.load(workspace))
    reports = [evaluate_route({"path": run.path, "sha256": run.sha256}, workspace) for run in runs]
    create_markdown_artifact(
        key="evaluation", markdown="\n\n".join(report["markdown"] for report in reports) or "No models."
    )
    return reports


if __name__ == "__main__":
    evaluate(str(WORKSPACE))
