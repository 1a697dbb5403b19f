"""The task `walk`: images on the way between held-out ones of two patients."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.errors import ConfigError, EmptySelection
from pipeline.stages.generate.codes.walk import run_walk
from pipeline.stages.generate.task_config import DenoiseTask, WalkTask, load_task, load_task_as
from pipeline.tracking.experiment import connect
from tests.stages.conftest import Hospital


def test_a_walk_is_drawn_measured_and_logged(hospital: Hospital, task_file: Path) -> None:
    walk = load_task_as(WalkTask, task_file, ["pairs=3", "steps=4"])
    report = run_walk(walk, hospital.settings)
    assert report.folder.sheet.read_bytes().startswith(b"\x89PNG")
    assert report.metrics["path_length"] > 0
    connect(hospital.settings)
    run = mlflow.get_run(report.folder.read("mlflow.json")["run_id"])
    assert (run.data.tags["task"], run.data.metrics["path_length"]) == (
        "walk",
        pytest.approx(report.metrics["path_length"]),
    )
    assert run_walk(walk, hospital.settings).to_json() == report.to_json()
    with Catalogue.open(hospital.settings) as catalogue:
        assert catalogue.run(report.task_id).kind == "generate"


def test_more_pairs_than_patients_are_refused(hospital: Hospital, task_file: Path) -> None:
    with pytest.raises(EmptySelection, match="200 patients"):
        run_walk(load_task_as(WalkTask, task_file, ["pairs=100"]), hospital.settings)


def test_a_method_without_codes_is_refused_before_it_trains(hospital: Hospital, task_file: Path) -> None:
    method = "{name: dae, widths: [8, 8, 8, 16, 16, 8]}"
    with pytest.raises(ConfigError, match="dae has no code"):
        run_walk(load_task_as(WalkTask, task_file, [f"run.method={method}"]), hospital.settings)


def test_a_file_of_a_sampler_names_the_model_of_other_tasks(task_file: Path) -> None:
    other = task_file.with_name("judged.yaml")
    other.write_text(task_file.read_text() + "judge: {classes: [modality]}\n")
    denoise = load_task_as(DenoiseTask, other, ["judge.detector=abc", "count=7"])
    assert (denoise.judge.detector, denoise.count, denoise.run) == ("abc", 7, load_task_as(WalkTask, other).run)
    with pytest.raises(ConfigError, match="pairs"):
        load_task_as(WalkTask, other, ["pairs=0"])
    other.write_text("task: dance\n" + task_file.read_text())
    with pytest.raises(ConfigError, match="dance.*sample, walk, traverse, denoise"):
        load_task(other)
