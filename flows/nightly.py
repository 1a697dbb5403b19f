"""Flow `nightly`: the whole night. `python -m flows.nightly CONFIG... -- PATH...` or `nightread nightly`"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import date as calendar_date
from functools import partial
from typing import Any, cast

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows import WORKSPACE
from flows.evaluate import evaluate
from flows.generate import generate
from flows.ingest import ingest
from flows.names import night_name, read_due_time
from flows.night_log import (
    cut_lines,
    evaluate_lines,
    ingest_lines,
    log_failures,
    log_lines,
    score_lines,
    train_lines,
)
from flows.outcome import ended, settled
from flows.policies import QUIET
from flows.publish_night import publish_night
from flows.request import find_request, hold_request, read_request
from flows.score import Deadline, score_with
from flows.server import name_lost_server
from flows.train import train
from pipeline.config import Settings
from pipeline.data.catalogue.schema import now
from pipeline.errors import NightreadError
from pipeline.stages.operations.night_report import build_night_report, find_untrained
from pipeline.stages.watch.json_log import log_within
from pipeline.stages.watch.nights import find_deadline, find_due_time, is_over, record_night, summarise


@flow(name="nightly", flow_run_name=night_name, **QUIET)
def nightly(request: str, workspace: str, date: str = "") -> Any:
    """Ingest new scans and their labels, train routes that have no champion, score, evaluate and report; last, run
    the generative tasks.

    A failing part (an unreadable folder, a route with too few normals) is reported and does not stop the rest. What the
    deadline of the schedule comes before is left to the next night: studies without a score, and parts not begun.
    `request` is the path of the file that describes the night (see `flows.request`); `date` (YYYY-MM-DD) says which
    missed night this one makes up for.
    """
    settings, schedule, began = Settings.load(workspace), read_request(request).name, now()
    due_at = find_due_time(settings, schedule, calendar_date.fromisoformat(date)) if date else read_due_time()
    with log_within(night_run_id=flow_run.id), record_night(settings, schedule, due_at) as night:
        deadline = find_deadline(settings, read_request(request))
        report = _run_parts(request, workspace, settings, None if deadline is None else deadline.to_json())
        night.summary, night.failures = summarise(report), len(report["failures"])
    create_markdown_artifact(key="night", markdown=report["markdown"], description="The night in one page")
    with log_within(night_run_id=flow_run.id):
        publish_night((began.date(), now().date()), workspace)
    return ended(report)


def _run_parts(request: str, workspace: str, settings: Settings, deadline: Deadline) -> dict[str, Any]:
    """Run the parts of the night in order, and return its report; past the deadline no further part begins."""
    skipped: list[str] = []
    until = partial(_until, deadline, skipped)
    log_lines(["1 of 5: reading new scans and labels."])
    ingested, failures = settled([cast(Any, ingest)(request, workspace, return_state=True)])
    log_lines(line for part in ingested for line in ingest_lines(part["reports"], part["labels"]))
    log_lines(["2 of 5: training routes that have no champion."])
    configs, unreadable = _untrained(request, settings)
    trained, untrained = until("training", configs, lambda one: train(one, workspace, return_state=True))
    log_lines(train_lines(configs, trained))
    log_lines(["3 of 5: scoring scans that nobody has read."])
    scored, unscored = _score(settings, deadline)
    log_lines(line for part in scored for line in score_lines(part["reports"]))
    log_lines(["4 of 5: measuring every champion on labelled scans."])
    measure = cast(Any, evaluate)
    measured, unmeasured = until("evaluation", [workspace], lambda one: measure(one, return_state=True))
    log_lines(line for part in measured for line in evaluate_lines(part["reports"]))
    tasks, draw = read_request(request).tasks, cast(Any, generate)
    log_lines([f"5 of 5: {len(tasks)} generative tasks."])
    _, undrawn = until("generative task", tasks, lambda one: draw(one, workspace, return_state=True))
    failures += unreadable + untrained + unscored + unmeasured + undrawn
    failures += [failure for part in (*ingested, *scored, *measured) for failure in part["failures"]]
    reports = [[report for part in parts for report in part["reports"]] for parts in (ingested, scored, measured)]
    log_failures(failures)
    report: dict[str, Any] = build_night_report(settings, *reports, failures, skipped)  # type: ignore[call-arg]  # three lists
    log_lines([*cut_lines(report["cut_short"]), *([report["stopped"]] if report["stopped"] else [])])
    log_lines([f"The night has ended with {len(failures)} failures. The artifact `night` is its report."])
    return report


def _until(
    deadline: Deadline, skipped: list[str], what: str, items: Sequence[str], run: Callable[[str], State[Any]]
) -> tuple[list[Any], list[str]]:
    """Run a part on each item in turn, add to `skipped` those that the deadline came before; return as `settled`."""
    states: list[State[Any]] = []
    for item in items:
        if is_over(deadline):
            left = len(items) - len(states)
            skipped.append(f"{left} {what}{'s' * (left != 1)}")
            break
        states.append(run(item))
    return settled(states)


def _score(settings: Settings, deadline: Deadline) -> tuple[list[Any], list[str]]:
    """Score with the task runner of the settings; one that cannot be had is a failure of this part."""
    try:
        flow_of_runner = score_with(settings)
    except NightreadError as error:
        return [], [f"{type(error).__name__}: {error}"]
    return settled([flow_of_runner(str(settings.workspace), deadline, return_state=True)])


def _untrained(request: str, settings: Settings) -> tuple[list[str], list[str]]:
    """Return the configurations that have no champion yet, and the errors of those that cannot be read."""
    pending, failures = [], []
    for config in read_request(request).configs:
        try:
            pending += find_untrained([config], settings)
        except NightreadError as error:
            failures.append(f"{type(error).__name__}: {error}")
    return pending, failures


def run_nightly(
    roots: list[str], configs: list[str], labels: list[str], workspace: str, tasks: Sequence[str] = (), day: str = ""
) -> dict[str, Any]:
    """Run the night once, for callers that do not use Prefect; `failures` in the report lists the errors.

    `day` (YYYY-MM-DD) is that of the missed night which this one makes up for.

    Heartbeats are off: the caller sees whether this process is alive, and each heartbeat costs a second per flow.
    """
    quick = temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
    served = find_request(Settings.load(workspace), "nightly") if day and not (roots or configs) else None
    with (
        quick,
        nullcontext(str(served)) if served else hold_request(workspace, roots, configs, labels, tasks) as request,
        name_lost_server(),
    ):
        report: dict[str, Any] = cast(Any, nightly)(request, workspace, day, return_state=True).result(
            raise_on_failure=False
        )
        if isinstance(report, BaseException):
            raise report
    return report


if __name__ == "__main__":
    separator = sys.argv.index("--")
    print(run_nightly(sys.argv[separator + 1 :], sys.argv[1:separator], [], str(WORKSPACE))["markdown"])
