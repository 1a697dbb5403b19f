"""List of generative tasks: those that are shipped, and the runs of a workspace with what they reached."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.config import Settings, find_shipped_file, read_values
from pipeline.errors import ArtefactError, ConfigError
from pipeline.stages.generate.sampling.comparison_config import load_comparison
from pipeline.stages.generate.task_config import load_task
from pipeline.stages.generate.task_folder import TaskFolder

TASKS = "configs/tasks"


def list_all_tasks(settings: Settings) -> list[dict[str, Any]]:
    """Return one row per shipped task and per task of the workspace, with the first number of a finished one."""
    return [*_shipped(), *_finished(settings)]


def _shipped() -> list[dict[str, Any]]:
    """Return the shipped files; one that somebody is writing is left out, as running it gives its error."""
    rows = []
    for file in sorted(find_shipped_file(TASKS).glob("*.yaml")):
        with suppress(ConfigError):
            rows.append({**_describe(file), "where": f"{TASKS}/{file.name}", "measure": "", "value": None})
    return rows


def _describe(file: Path) -> dict[str, str]:
    if read_values(file).get("task") == "compare":
        comparison = load_comparison(file)
        methods = f"{len(comparison.samplers)} samplers"
        return {"task": comparison.task, "name": comparison.name, "method": methods}
    task = load_task(file)
    return {"task": task.task, "name": task.name, "method": "" if task.run is None else task.run.method.name}


def _finished(settings: Settings) -> list[dict[str, Any]]:
    return [row for folder in TaskFolder.list_all(settings) if (row := _read_row(folder)) is not None]


def _read_row(folder: TaskFolder) -> dict[str, Any] | None:
    try:
        config, facts = folder.read("config.json"), folder.read("task.json")
        metrics = folder.read("report.json")["metrics"] if folder.has("report.json") else {}
    except ArtefactError:
        return None
    measure, value = next(iter(metrics.items()), ("", None))
    return {
        "task": config["task"],
        "name": config["name"],
        "method": facts["method"],
        "where": folder.task_id,
        "measure": measure,
        "value": value,
    }
