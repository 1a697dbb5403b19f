"""End of every generative task: its table, its judgement, its MLflow run and its row in the catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline import durable
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.stages.generate.log_task import log_task
from pipeline.stages.generate.task_base import TaskConfig
from pipeline.stages.generate.task_folder import TaskFolder


@dataclass(frozen=True, slots=True)
class TaskReport:
    """A finished task.

    Attributes:
        folder: of the task, with its pictures.
        table: Markdown: one table or several, with a line of text between them.
        metrics: numbers by name, the headline first.
        rows: what the judge found, as JSON; () where nothing was judged.
        warnings: sentences that need attention.
    """

    folder: TaskFolder
    table: str
    metrics: Mapping[str, float]
    rows: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def task_id(self) -> str:
        """Name of the task's folder."""
        return self.folder.task_id

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "task_id": self.task_id,
            "folder": str(self.folder.path),
            "sheet": str(self.folder.sheet),
            "table": self.table,
            "metrics": dict(self.metrics),
            "rows": [dict(row) for row in self.rows],
            "warnings": list(self.warnings),
        }

    def sentence(self) -> str:
        """Return where the results are, after the warnings."""
        return "\n".join([*self.warnings, f"Task {self.task_id}. Picture: {self.folder.sheet}"])

    def publish(self, config: TaskConfig, settings: Settings) -> None:
        """Write the table and the judgement into the folder, and log them with the pictures to MLflow."""
        durable.write(self.folder.path / "table.md", self.table + "\n")
        rows = [dict(row) for row in self.rows]
        report = {"metrics": dict(self.metrics), "warnings": list(self.warnings), "rows": rows}
        self.folder.write("report.json", report)
        log_task(self.folder, config, settings, self.table, self.metrics, self.rows)


@contextmanager
def recorded(folder: TaskFolder, settings: Settings) -> Iterator[dict[str, Any]]:
    """Enter a task into the catalogue: done with the summary that the caller fills in, or failed."""
    summary: dict[str, Any] = {}
    with Catalogue.open(settings) as catalogue:
        route, path = folder.read("task.json")["route"], settings.relative(folder.path)
        catalogue.start_run("generate", route, path, run_id=folder.task_id)
        try:
            yield summary
        except BaseException:
            catalogue.finish_run(folder.task_id, "failed", {})
            raise
        catalogue.finish_run(folder.task_id, "done", summary)
