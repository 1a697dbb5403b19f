"""Flow `evaluate`: measure every champion on labelled scans. `python -m flows.evaluate`"""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact

from flows import WORKSPACE
from flows.names import evaluate_name
from flows.outcome import ended, settled
from flows.policies import HOUR, STEADY, discreet
from pipeline.config import Settings
from pipeline.stages.evaluate import evaluate as evaluate_stage
from pipeline.stages.evaluate import headline
from pipeline.stages.score import detectors_to_run
from pipeline.types import RunRef


@task(name="evaluate-route", timeout_seconds=4 * HOUR, **STEADY)
def evaluate_route(run: dict[str, str], workspace: str) -> dict[str, Any]:
    """Evaluate one detector on its develop set."""
    with discreet():
        report = evaluate_stage(RunRef(**run), Settings.load(workspace))
        return {"run": run["path"], "sentence": headline(report), "markdown": report.to_markdown()}


@flow(name="evaluate", flow_run_name=evaluate_name, persist_result=False)
def evaluate(workspace: str) -> Any:
    """Evaluate every champion and publish the reports.

    A route that fails stops no other. Returns {"reports", "failures"}.
    """
    runs = detectors_to_run(Settings.load(workspace))
    states = [evaluate_route({"path": run.path, "sha256": run.sha256}, workspace, return_state=True) for run in runs]
    reports, failures = settled(states)
    pages = [report["markdown"] for report in reports]
    create_markdown_artifact(key="evaluation", markdown="\n\n".join(pages) or "No detector was evaluated.")
    return ended({"reports": reports, "failures": failures})


if __name__ == "__main__":
    evaluate(str(WORKSPACE))
