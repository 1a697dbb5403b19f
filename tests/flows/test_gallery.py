"""`make gallery` on a handful of phantoms: pictures and tables of a chosen sampler and of every other task."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.stages.generate.task_config import load_task

RUN = """
name: tiny
data:
  route: phantom-mr
  normaliser: {kind: mr_percentile, image_size: 32}
  splits:
    normals: {train: 0.4, validate: 0.2, develop: 0.4}
    others: {develop: 1.0}
method: {name: vae, widths: [8, 16], latent: 8}
training: {images: 64, batch_size: 16, validate_every_images: 64}
"""
COMPARISON = """
name: tiny-samplers
base: {file: task.yaml}
samplers:
  - {name: pca, method: {name: pca, directions: 4}}
  - {name: vae, method: {name: vae, widths: [8, 16], latent: 8}}
"""


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    (tmp_path / "run.yaml").write_text(RUN)
    (tmp_path / "task.yaml").write_text("name: tiny\nrun: run.yaml\ncount: 16\n")
    (tmp_path / "samplers.yaml").write_text(COMPARISON)
    return tmp_path / "samplers.yaml"


@pytest.mark.slow
def test_every_task_leaves_its_pictures_and_tables(comparison: Path, tmp_path: Path) -> None:
    from flows.gallery import OTHERS, main

    out, workspace = tmp_path / "out", tmp_path / "workspace"
    workspace.mkdir()
    main(out, ("pca",), workspace, comparison, 60, own_runs=(), panels=())
    assert {file.name for file in out.glob("*.*")} == {"pca.png", "kid.png", "leaderboard.md"}
    tasks = {file.name for file in (out / "tasks").iterdir()}
    assert tasks == {"denoise-sweep.png", *(f"{kind}{end}" for kind in OTHERS for end in (".md", "-sheet.png"))}
    with pytest.raises(ConfigError, match="nothing.*pca, vae"):
        main(out, ("nothing",), workspace, comparison, 60, own_runs=(), panels=())


def test_every_panel_names_a_task_of_its_kind_and_makes_it_smaller() -> None:
    from flows.gallery import PANELS, TASKS

    for panel in PANELS:
        shipped, small = (load_task(TASKS / f"{panel.file}.yaml", changes) for changes in ((), panel.changes))
        assert small.task == panel.kind
        assert small == shipped or small.run.training.images < shipped.run.training.images
