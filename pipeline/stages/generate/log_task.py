"""Log a generative task to MLflow: one run per task, reopened when the task is repeated."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline import __version__
from pipeline.config import Settings
from pipeline.stages.generate.task_base import TaskConfig
from pipeline.stages.generate.task_folder import TaskFolder
from pipeline.tracking.experiment import track


def log_task(
    folder: TaskFolder,
    config: TaskConfig,
    settings: Settings,
    table: str,
    metrics: Mapping[str, float],
    judged: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Log configuration, table, metrics and every picture of the folder, tagged as synthetic.

    Args:
        folder: of the task, with its pictures.
        config: the task.
        settings: the workspace.
        table: Markdown.
        metrics: numbers by name.
        judged: what the judge found, as JSON; nothing where nothing was judged.
    """
    facts = folder.read("task.json")
    earlier = folder.read("mlflow.json").get("run_id") if folder.has("mlflow.json") else None
    with track(settings, facts["route"], config.name, earlier, system_metrics=False) as tracked:
        folder.write("mlflow.json", {"run_id": tracked.run_id})
        tracked.log_tags(
            {
                "task": config.model_dump()["task"],
                "task_id": folder.task_id,
                "synthetic": "yes" if config.makes_images else "no",
                "run_id": facts["run"],
                "model_sha256": facts["model_sha256"],
                "version": __version__,
            }
        )
        if earlier is None:
            tracked.log_config(config)
        tracked.log_text(table, "tables/quality.md")
        if judged:
            tracked.log_text(json.dumps(list(judged), indent=2), "judgement.json")
        for picture in sorted(folder.path.glob("*.png")):
            tracked.log_file(picture, "figures")
        tracked.log_metrics(metrics)
