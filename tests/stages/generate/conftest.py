"""A task over the hospital's phantoms: a tiny VAE, trained once for the session."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.stages.generate.task_config import SampleTask, load_task
from tests.stages.conftest import Hospital

RUN = """
name: tiny-vae
data:
  route: phantom-mr
  normaliser: {kind: mr_percentile, image_size: 32}
  splits:
    normals: {train: 0.3, validate: 0.25, calibrate: 0.2, develop: 0.15, test: 0.1}
    others: {develop: 0.6, test: 0.4}
method: {name: vae, widths: [8, 16], latent: 4}
training: {images: 64, batch_size: 16, validate_every_images: 64}
"""
TASK = """
name: tiny
run: run.yaml
count: 24
batch: 10
"""


@pytest.fixture(scope="session")
def task_file(hospital: Hospital, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configuration of a task, beside that of its run."""
    folder = tmp_path_factory.mktemp("task")
    (folder / "run.yaml").write_text(RUN)
    (folder / "task.yaml").write_text(TASK)
    return folder / "task.yaml"


@pytest.fixture
def task(task_file: Path) -> SampleTask:
    """The task."""
    return load_task(task_file)
