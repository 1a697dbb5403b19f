"""Flow `evaluate`: measure every champion on labelled scans. `python -m flows.evaluate`"""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext

from flows import WORKSPACE
from flows.names import evaluate_name
from flows.night_log import evaluate_lines, log_failures, log_lines, log_progress
from flows.outcome import ended, of_every_champion
from flows.policies import CACHED, HOUR, QUIET, STEADY, keep_discreet
from pipeline.config import Settings
from pipeline.stages.detect.evaluate import evaluate as evaluate_stage
from pipeline.stages.detect.evaluate import headline
from pipeline.stages.detect.evaluation_key import hash_evaluation_inputs
from pipeline.types import RunRef


def _cache_key(_: TaskRunContext, parameters: dict[str, Any]) -> str:
    """Return the cache key: the hash of everything that the evaluation depends on."""
    with keep_discreet():
        return hash_evaluation_inputs(RunRef(**parameters["run"]), Settings.load(parameters["workspace"]))


REUSED: dict[str, Any] = {**STEADY, **CACHED, "cache_policy": CachePolicy.from_cache_key_fn(_cache_key)}


@task(name="evaluate-route", timeout_seconds=4 * HOUR, **REUSED)
def evaluate_route(run: dict[str, str], workspace: str) -> dict[str, Any]:
    """Evaluate one detector on its develop set; the same detector on the same data is read from the cache."""
    with keep_discreet(), log_progress("Evaluating", "slices") as advance:
        report = evaluate_stage(RunRef(**run), Settings.load(workspace), on_progress=advance)
        return {"run": run["path"], "sentence": headline(report), "markdown": report.to_markdown()}


@flow(name="evaluate", flow_run_name=evaluate_name, **QUIET)
def evaluate(workspace: str) -> Any:
    """Evaluate every champion and publish the reports.

    A route that fails does not stop the others. Returns {"reports", "failures"}.
    """
    reports, failures = of_every_champion(evaluate_route, workspace)
    pages = [report["markdown"] for report in reports]
    create_markdown_artifact(
        key="evaluation",
        markdown="\n\n".join(pages) or "No detector was evaluated.",
        description="Every model in use, measured on labelled scans beside the trivial controls",
    )
    log_lines(evaluate_lines(reports))
    log_failures(failures)
    return ended({"reports": reports, "failures": failures})


if __name__ == "__main__":
    evaluate(str(WORKSPACE))
