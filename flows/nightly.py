"""Flow `nightly`: the whole night. `python -m flows.nightly CONFIG... -- PATH...` or `nightread nightly`"""

from __future__ import annotations

import sys
from typing import Any, cast

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows import WORKSPACE
from flows.evaluate import evaluate
from flows.ingest import ingest
from flows.names import night_name
from flows.outcome import ended, settled
from flows.policies import QUIET
from flows.request import hold_request, read_request
from flows.score import score
from flows.train import train
from pipeline.config import Settings
from pipeline.errors import NightreadError
from pipeline.stages.operations.night_report import build_night_report, find_untrained


@flow(name="nightly", flow_run_name=night_name, **QUIET)
def nightly(request: str, workspace: str) -> Any:
    """Ingest new scans and their labels, train routes that have no champion, score, evaluate and report.

    A failing part (an unreadable folder, a route with too few normals) is reported and does not stop the rest.
    `request` is the path of the file that describes the night (see `flows.request`).
    """
    settings = Settings.load(workspace)
    ingested, failures = settled([cast(Any, ingest)(request, workspace, return_state=True)])
    configs, unreadable = _untrained(request, settings)
    _, untrained_failures = settled([train(config, workspace, return_state=True) for config in configs])
    scored, unscored = settled([cast(Any, score)(workspace, return_state=True)])
    measured, unmeasured = settled([cast(Any, evaluate)(workspace, return_state=True)])
    failures += unreadable + untrained_failures + unscored + unmeasured
    failures += [failure for part in (*ingested, *scored, *measured) for failure in part["failures"]]
    reports = [[report for part in parts for report in part["reports"]] for parts in (ingested, scored, measured)]
    report = build_night_report(settings, *reports, failures)  # type: ignore[call-arg]  # three lists
    create_markdown_artifact(key="night", markdown=report["markdown"], description="The night in one page")
    return ended(report)


def _untrained(request: str, settings: Settings) -> tuple[list[str], list[str]]:
    """Return the configurations that have no champion yet, and the errors of those that cannot be read."""
    pending, failures = [], []
    for config in read_request(request).configs:
        try:
            pending += find_untrained([config], settings)
        except NightreadError as error:
            failures.append(f"{type(error).__name__}: {error}")
    return pending, failures


def run_nightly(roots: list[str], configs: list[str], labels: list[str], workspace: str) -> dict[str, Any]:
    """Run the night once, for callers that do not use Prefect; `failures` in the report lists the errors.

    Heartbeats are off: the caller sees whether this process is alive, and each heartbeat costs a second per flow.
    """
    quick = temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
    with quick, hold_request(workspace, roots, configs, labels) as request:
        report: dict[str, Any] = cast(Any, nightly)(request, workspace, return_state=True).result(
            raise_on_failure=False
        )
    if isinstance(report, BaseException):
        raise report
    return report


if __name__ == "__main__":
    separator = sys.argv.index("--")
    print(run_nightly(sys.argv[separator + 1 :], sys.argv[1:separator], [], str(WORKSPACE))["markdown"])
