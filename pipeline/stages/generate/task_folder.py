"""Folders of generative tasks: plain files, written atomically, which an interrupted task continues from.

<workspace>/generated/<task id>/
    config.json  task.json  mlflow.json      configuration; model, route and conditions; MLflow run
    samples/<drawing>/part-<n>.safetensors   images, and the CPU seconds that they took
    report.json  table.md                    what was found: metrics, warnings, rows of the judge
    sheet.png  sweep.png                     pictures
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pipeline import durable
from pipeline.config import Settings
from pipeline.errors import ArtefactError
from pipeline.stages.run.run_folder import read_json

IMAGES, SECONDS = "images", "process_seconds"


@dataclass(frozen=True, slots=True)
class TaskFolder:
    """One task's folder; see the module's docstring for its files."""

    path: Path

    @classmethod
    def make(cls, settings: Settings, task_id: str, files: dict[str, Any]) -> TaskFolder:
        """Return the folder of a task, with these JSON files in it; the folder's name says what they must hold."""
        folder = cls(settings.generated / task_id)
        for name, value in files.items():
            folder.write(name, value)
        return folder

    @classmethod
    def list_all(cls, settings: Settings) -> list[TaskFolder]:
        """Return the folders below `generated`, in order; that of a comparison has none of a task's files."""
        folders = sorted(settings.generated.glob("*/")) if settings.generated.is_dir() else []
        return [cls(folder) for folder in folders]

    @property
    def task_id(self) -> str:
        """The task's id: the folder's name."""
        return self.path.name

    @property
    def sheet(self) -> Path:
        """The picture of the images."""
        return self.path / "sheet.png"

    def write(self, name: str, value: Any) -> None:
        """Write JSON atomically."""
        durable.write(self.path / name, json.dumps(value, indent=2))

    def read(self, name: str) -> Any:
        """Read JSON.

        Raises:
            ArtefactError: the file is missing or damaged.
        """
        remedy = "Repeat nightread generate with its configuration, which draws and judges what is missing."
        return read_json(self.path / name, f"The task {self.task_id}", remedy)

    def has(self, name: str) -> bool:
        """Return whether a JSON file is there and readable."""
        try:
            return bool(self.read(name))
        except ArtefactError:
            return False

    def part(self, drawing: str, number: int) -> Path:
        """Return the file of one batch of a drawing."""
        return self.path / "samples" / drawing / f"part-{number:05d}.safetensors"

    def write_part(self, drawing: str, number: int, images: Tensor, seconds: float) -> None:
        """Write one batch of a drawing, with the CPU seconds that it took."""
        content = save({IMAGES: images.contiguous()}, metadata={SECONDS: f"{seconds:.6f}"})
        durable.write(self.part(drawing, number), content)

    def read_part(self, drawing: str, number: int) -> tuple[Tensor, float] | None:
        """Return one batch of a drawing and its CPU seconds; None where it is missing or damaged."""
        try:
            with safe_open(self.part(drawing, number), framework="pt") as file:
                return file.get_tensor(IMAGES), float(file.metadata()[SECONDS])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None
