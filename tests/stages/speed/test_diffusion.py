"""`nightread benchmark diffusion`: measured on the run's own network and validate normals."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.cli import group
from pipeline.config import load_config
from pipeline.stages.detect.train import train
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.speed.diffusion import measure_diffusion_speed
from pipeline.types import RunRef

DDPM = (
    'method={"name": "ddpm", "denoiser": {"widths": [8], "attention": [false]}, "start_times": [60, 120], "steps": 3}',
    "training.images=32",
)


@pytest.fixture(scope="module")
def run_id(hospital: Any) -> str:
    return train(load_config(hospital.run_file, RunConfig, DDPM), hospital.settings).path.rpartition("/")[2]


def test_the_command_prints_a_row_a_way(hospital: Any, run_id: str) -> None:
    asked = ["-w", str(hospital.settings.workspace), "benchmark", "diffusion", run_id, "--images", "2", "--rounds", "1"]
    done = CliRunner().invoke(group, [*asked, "--json"])
    assert done.exit_code == 0, done.output
    rows = {row["way"]: row for row in json.loads(done.stdout)}
    passes = {"one forward pass": 1, "50 steps, start by start": 100, "3 steps, start by start": 6, "in one batch": 6}
    assert {name: rows[name]["passes"] for name in passes} == passes
    assert all(row["speedup"] > 0 and row["difference"] >= 0 for row in rows.values())
    assert "torch.compile" not in rows


def test_other_methods_are_refused(hospital: Any, trained_run: RunRef) -> None:
    asked = ["-w", str(hospital.settings.workspace), "benchmark", "diffusion", trained_run.path.rpartition("/")[2]]
    done = CliRunner().invoke(group, asked)
    assert done.exit_code == 2 and "is not a ddpm" in done.output


def test_images_are_no_more_than_there_are(hospital: Any, run_id: str) -> None:
    rows = measure_diffusion_speed(hospital.settings, run_id, images=1, rounds=1)
    assert rows[0]["images_per_second"] > 0 and rows[0]["way"] == "one forward pass"
