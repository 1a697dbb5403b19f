"""Flow `score`: score the night's studies with every champion and flag. `python -m flows.score`"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any, cast

from prefect import flow, task
from prefect.artifacts import create_image_artifact, create_table_artifact
from prefect.deployments import run_deployment

from flows import WORKSPACE
from flows.names import score_name
from flows.night_log import log_failures, log_lines, log_progress, score_lines
from flows.outcome import ended, of_every_champion, settled
from flows.policies import HOUR, QUIET, STEADY, keep_discreet
from flows.runners import build_runner
from pipeline.config import Settings
from pipeline.stages.detect.score import find_detectors_to_run
from pipeline.stages.detect.score import score as score_stage
from pipeline.stages.operations.flagged_pictures import draw_flagged_pictures
from pipeline.stages.watch.nights import is_over
from pipeline.types import RunRef

HELPER = "score-helper/scoring"  # deployment of `help_score`
Deadline = dict[str, Any] | None  # a `Tick` as JSON


@task(name="score-route", timeout_seconds=12 * HOUR, **STEADY)
def score_route(run: dict[str, str], workspace: str, deadline: Deadline = None) -> dict[str, Any]:
    """Score with one detector; studies that it has already scored are skipped, so a retry repeats nothing.

    Studies without a score at the deadline are left to the next run.
    """
    with keep_discreet(), log_progress("Scoring", "slices") as advance:
        settings, stop = Settings.load(workspace), partial(is_over, deadline)
        return score_stage(RunRef(**run), settings, on_progress=advance, for_report=True, stop=stop).to_json()


@task(name="show-flagged", timeout_seconds=HOUR, **STEADY)
def show_flagged(reports: list[dict[str, Any]], workspace: str) -> int:
    """Publish the flagged list, and pictures of its first scans where the policy on burned-in text allows it."""
    with keep_discreet():
        rows, pictures = draw_flagged_pictures(Settings.load(workspace), [report["run_id"] for report in reports])
        create_table_artifact(key="flagged", table=rows, description="Flagged scans, most unusual first")
        # The page of artefacts shows the newest first, so the most unusual scan is published last.
        for number, picture in reversed(list(enumerate(pictures, start=1))):
            about = f"{number} of {len(pictures)} pictures, most unusual first. {picture.route}: {picture.caption}"
            create_image_artifact(image_url=picture.data_url, key=f"flagged-{number}", description=about)
        return len(pictures)


@flow(name="score", flow_run_name=score_name, **QUIET)
def score(workspace: str, deadline: Deadline = None) -> Any:
    """Score the new studies of every route until the deadline, and publish the flagged list.

    A route that fails does not stop the others. Returns {"reports", "failures"}.
    """
    policy = Settings.load(workspace).scoring
    uncalled = _call_helpers(policy.workers - 1, workspace, deadline) if policy.runner == "pool" else []
    reports, failures = _score_every_route(workspace, 1 if policy.runner == "pool" else policy.workers, deadline)
    _, unshown = settled([show_flagged(reports, workspace, return_state=True)])
    log_lines(score_lines(reports))
    failures = uncalled + failures + unshown
    log_failures(failures)
    return ended({"reports": reports, "failures": failures})


@flow(name="score-helper", flow_run_name=score_name, **QUIET)
def help_score(workspace: str, deadline: Deadline = None) -> Any:
    """Take part in the scoring of a night that another worker of the pool is running. Returns {"reports", "failures"}.

    Whoever comes too late finds no studies left.
    """
    reports, failures = _score_every_route(workspace, 1, deadline)
    log_failures(failures)
    return ended({"reports": reports, "failures": failures})


def score_with(settings: Settings) -> Any:
    """Return the flow with the task runner that the settings name.

    Raises:
        ConfigError: see `flows.runners.build_runner`.
    """
    return score.with_options(task_runner=build_runner(settings.scoring))


def _score_every_route(workspace: str, workers: int, deadline: Deadline) -> tuple[list[Any], list[str]]:
    """Score with each route's champion in turn, by so many tasks at once."""
    if workers == 1:
        return of_every_champion(score_route, workspace, deadline=deadline)
    reports: list[Any] = []
    failures: list[str] = []
    for champion in find_detectors_to_run(Settings.load(workspace)):
        futures = [score_route.submit(asdict(champion), workspace, deadline) for _ in range(workers)]
        for future in futures:
            future.wait()
        done, failed = settled([future.state for future in futures])
        reports += _of_one_run(done)
        # A report is there only when every study of the run is scored, so that the others' end changed nothing.
        failures += [] if done else failed[:1]
        log_lines(f"A worker on this route ended early; the others did its part. {one}" for one in failed if done)
    return reports, failures


def _of_one_run(reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the reports of workers on one route once per run; those who came too late had nothing to report."""
    runs = {report["run_id"]: report for report in reports}
    return [one for one in runs.values() if one["studies"]] or list(runs.values())[:1]


def _call_helpers(count: int, workspace: str, deadline: Deadline) -> list[str]:
    """Ask other workers of the work pool to take part; return what failed."""
    try:
        for _ in range(count):
            parameters = {"workspace": workspace, "deadline": deadline}
            cast(Any, run_deployment)(HELPER, parameters=parameters, timeout=0, as_subflow=False)
    except Exception as error:  # without a server, or without the deployment
        return [f"{type(error).__name__}: no helper was called; this worker scores alone. Deploy {HELPER} for others."]
    return []


if __name__ == "__main__":
    score_with(Settings.load(WORKSPACE))(str(WORKSPACE))
