"""The report of a night, published at its end: in the workspace, on the night's run in Prefect, and in MLflow."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from prefect import task
from prefect.artifacts import create_markdown_artifact

from flows.night_log import log_failures, log_lines
from flows.outcome import settled
from flows.policies import HOUR, STEADY, keep_discreet
from pipeline.config import Settings
from pipeline.review.save_night import save_night, track_night


@task(name="publish-report", timeout_seconds=HOUR, **STEADY)
def publish_report(day: str, workspace: str) -> str:
    """Write and attach the report of a day (YYYY-MM-DD, UTC); return what kept it from being a PDF, or ""."""
    with keep_discreet():
        settings = Settings.load(workspace)
        saved = save_night(settings, date.fromisoformat(day))
        create_markdown_artifact(
            key="night-report", markdown=saved.describe(), description=f"Report of {day}: the files"
        )
        track_night(settings, saved)
    return saved.missing


def publish_night(days: Iterable[date], workspace: str) -> None:
    """Publish the report of each day on which the night ran; one that fails is logged, and never fails the night."""
    states = [publish_report(str(day), workspace, return_state=True) for day in sorted(set(days))]
    missing, failures = settled(states)
    log_lines(f"The report of the night has no PDF: {one}." for one in missing if one)
    log_failures(f"The report of the night was not published: {failure}" for failure in failures)
