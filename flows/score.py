"""Flow `score`: score the night's studies with every champion and flag. `python -m flows.score`"""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.artifacts import create_image_artifact, create_table_artifact

from flows import WORKSPACE
from flows.names import score_name
from flows.night_log import log_failures, log_lines, log_progress, score_lines
from flows.outcome import ended, of_every_champion, settled
from flows.policies import HOUR, QUIET, STEADY, keep_discreet
from pipeline.config import Settings
from pipeline.stages.detect.score import score as score_stage
from pipeline.stages.operations.flagged_pictures import draw_flagged_pictures
from pipeline.types import RunRef


@task(name="score-route", timeout_seconds=12 * HOUR, **STEADY)
def score_route(run: dict[str, str], workspace: str) -> dict[str, Any]:
    """Score with one detector; studies that it has already scored are skipped, so a retry repeats nothing."""
    with keep_discreet(), log_progress("Scoring", "slices") as advance:
        return score_stage(RunRef(**run), Settings.load(workspace), on_progress=advance).to_json()


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
def score(workspace: str) -> Any:
    """Score the new studies of every route and publish the flagged list.

    A route that fails does not stop the others. Returns {"reports", "failures"}.
    """
    reports, failures = of_every_champion(score_route, workspace)
    _, unshown = settled([show_flagged(reports, workspace, return_state=True)])
    log_lines(score_lines(reports))
    log_failures(failures + unshown)
    return ended({"reports": reports, "failures": failures + unshown})


if __name__ == "__main__":
    score(str(WORKSPACE))
