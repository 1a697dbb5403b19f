"""Flow `ingest`: read folders and archives into the catalogue. `python -m flows.ingest PATH...`"""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact

from flows import WORKSPACE
from flows.names import ingest_name
from flows.night_log import ingest_lines, log_failures, log_lines, log_progress
from flows.outcome import ended, settled
from flows.policies import HOUR, QUIET, STEADY, keep_discreet
from flows.request import hold_request, read_request, read_roots
from pipeline.config import Settings
from pipeline.data.ingest.ingest import ingest as ingest_paths
from pipeline.data.labels.labels import import_labels


@task(name="ingest-root", timeout_seconds=12 * HOUR, **STEADY)
def ingest_root(root: str, workspace: str) -> dict[str, Any]:
    """Ingest one folder, file or archive; bad files become rejections, and a retry adds nothing twice.

    Raises:
        OSError: the root is missing. This is not a bad file: it may reappear, like a share that is not mounted.
    """
    with keep_discreet(), log_progress("Reading", "files") as advance:
        report = ingest_paths([Path(root)], Settings.load(workspace), advance)
        if report.rejected and not os.path.lexists(root):
            raise OSError(
                errno.ENOENT, "A folder of the night does not exist. Check the spelling and that the drive is mounted."
            )
        return report.to_json()


@task(name="import-labels", timeout_seconds=HOUR, **STEADY)
def import_label_file(file: str, workspace: str) -> dict[str, Any]:
    """Import one label file; rows that were imported before add nothing."""
    with keep_discreet():
        return asdict(import_labels(Path(file), Settings.load(workspace)))


@flow(name="ingest", flow_run_name=ingest_name, **QUIET)
def ingest(request: str, workspace: str) -> Any:
    """Ingest every root of the request and the network inbox, then the label files, and publish the rejections.

    A root or label file that fails does not stop the others. Returns {"reports", "labels", "failures"}.
    """
    night = read_request(request)
    roots = read_roots(request, workspace)
    reports, failures = settled([ingest_root(root, workspace, return_state=True) for root in roots])
    labelled, unread = settled([import_label_file(file, workspace, return_state=True) for file in night.labels])
    rejected = [{"code": code, "files": count} for report in reports for code, count in report["rejected"].items()]
    create_table_artifact(key="rejected", table=rejected, description="Files rejected in this run, by reason")
    log_lines(ingest_lines(reports, labelled))
    log_failures(failures + unread)
    return ended({"reports": reports, "labels": labelled, "failures": failures + unread})


if __name__ == "__main__":
    with hold_request(str(WORKSPACE), [str(Path(root).absolute()) for root in sys.argv[1:]]) as file:
        ingest(file, str(WORKSPACE))
