"""A generative task as a flow: readable, with its table and picture in Prefect, and run by the night that lists it.

Last of this room, as it adds runs to the night that the others look at.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

RUN = """
name: night-vae
data:
  route: phantom-mr
  normaliser: {kind: mr_percentile, image_size: 32}
  splits:
    normals: {train: 0.4, validate: 0.1, calibrate: 0.3, develop: 0.2}
    others: {develop: 1.0}
method: {name: vae, widths: [8, 16], latent: 4}
training: {images: 32, batch_size: 16, validate_every_images: 32}
"""


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    (tmp_path / "run.yaml").write_text(RUN)
    (tmp_path / "task.yaml").write_text("name: night\nrun: run.yaml\ncount: 16\njudge: {baseline: null}\n")
    return tmp_path / "task.yaml"


def test_the_night_runs_its_tasks(night: Any, task_file: Path, artefacts: Any, flow_runs: Any) -> None:
    from flows.nightly import run_nightly

    settings, _ = night
    report = run_nightly([], [], [], str(settings.workspace), [str(task_file), str(task_file.with_name("none.yaml"))])
    assert [failure.partition(":")[0] for failure in report["failures"]] == ["ConfigError"]
    (picture,) = artefacts()["generated-sheet"]
    assert picture.data.startswith("data:image/png;base64,")
    assert artefacts()["generated"][-1].data.startswith("| images")
    assert any(name.startswith("sample night, ") for name in flow_runs())
