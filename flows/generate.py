"""Flow `generate`: run a generative task, whatever its kind. `python -m flows.generate CONFIG`"""

from __future__ import annotations

import base64
import sys
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_image_artifact, create_markdown_artifact

from flows import WORKSPACE
from flows.names import generate_name
from flows.policies import HOUR, QUIET, STEADY, keep_discreet
from pipeline.config import Settings
from pipeline.stages.generate.run_task import run_task
from pipeline.stages.generate.task_config import load_task
from pipeline.stages.generate.task_report import TaskReport

LARGEST = 4_000_000  # bytes of a picture that Prefect's page shows


@task(name="run-task", timeout_seconds=24 * HOUR, **STEADY)
def run_one(config: str, workspace: str) -> dict[str, Any]:
    """Train what is missing, draw, judge, log to MLflow and publish; a retry draws only the missing batches."""
    with keep_discreet():
        task_config = load_task(config)
        report = run_task(task_config, Settings.load(workspace))
        publish(report, task_config.name)
        return report.to_json()


def publish(report: TaskReport, name: str) -> None:
    """Show the table and the picture on Prefect's page."""
    create_markdown_artifact(key="generated", markdown=report.table, description=name)
    picture = report.folder.sheet.read_bytes()
    if len(picture) <= LARGEST:
        url = "data:image/png;base64," + base64.b64encode(picture).decode()
        create_image_artifact(image_url=url, key="generated-sheet", description=f"{name}, synthetic")


@flow(name="generate", flow_run_name=generate_name, **QUIET)
def generate(config: str, workspace: str) -> dict[str, Any]:
    """Run one generative task; an interrupted one continues where it stopped."""
    return run_one(config, workspace)


if __name__ == "__main__":
    generate(sys.argv[1], str(WORKSPACE))
