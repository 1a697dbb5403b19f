"""The task `denoise`: noise removed by a model beside plain filters, and the question whether lesions survive it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.corruption.degrade import DegradationConfig
from pipeline.corruption.degrade_noise import GaussianNoise
from pipeline.errors import ArtefactError, ConfigError
from pipeline.methods.regression_unet import RegressionUnetConfig
from pipeline.nn.rng import Rng
from pipeline.stages.generate.gallery import write_gallery
from pipeline.stages.generate.restoration.classical_denoisers import keep
from pipeline.stages.generate.restoration.denoise import make_problems, warn_of_strengths
from pipeline.stages.generate.restoration.lesion_survival import Watch, judge_survival
from pipeline.stages.generate.restoration.model_answer import require_answer
from pipeline.stages.generate.restoration.paired import HeldOut, Problem, read_held_out, solve_all
from pipeline.stages.generate.run_task import run_task
from pipeline.stages.generate.task_config import DenoiseTask, load_task_as
from pipeline.stages.generate.task_report import TaskReport
from pipeline.stages.generate.trained_model import TrainedModel, find_run, train_for
from pipeline.tracking.experiment import connect
from pipeline.types import Batch, RunRef
from tests.stages.conftest import Hospital

TINY = {
    "name": "r",
    "data": {"route": "phantom-mr", "normaliser": {"kind": "mr_percentile", "image_size": 32}},
    "method": {"name": "vae"},
}


@pytest.fixture(scope="module")
def task(task_file: Path, evaluated_run: RunRef) -> DenoiseTask:
    detector = f"judge.detector={Path(evaluated_run.path).name}"
    return load_task_as(DenoiseTask, task_file, ["count=24", "strengths=[0.4, 0.2]", detector])


@pytest.fixture(scope="module")
def report(hospital: Hospital, task: DenoiseTask) -> TaskReport:
    return run_task(task, hospital.settings)


@pytest.fixture(scope="module")
def trained(hospital: Hospital, task: DenoiseTask, report: TaskReport) -> TrainedModel:
    return train_for(task, hospital.settings, require_answer)


@pytest.fixture(scope="module")
def held_out(hospital: Hospital, task: DenoiseTask, trained: TrainedModel) -> HeldOut:
    return read_held_out(trained, hospital.settings, task.of, task.count, task.seed)


def test_every_answer_has_its_distances_and_its_lesions(report: TaskReport, hospital: Hospital) -> None:
    pairs = [row for row in report.rows if "psnr" in row]
    names = ["nothing", "Gaussian filter", "non-local means", "vae"]
    assert [row["name"] for row in pairs] == 2 * names
    nothing = {row["level"]: row["psnr"]["value"] for row in pairs if row["name"] == "nothing"}
    assert nothing == pytest.approx({0.4: 20 * np.log10(2 / 0.4), 0.2: 20 * np.log10(2 / 0.2)}, abs=0.3)
    seen = [row for row in report.rows if "auroc" in row]
    assert [row["name"] for row in seen] == 2 * ["original", *names]
    assert all(row["pixel_ap_change"] is None for row in seen if row["name"] == "original")
    connect(hospital.settings)
    logged = mlflow.get_run(report.folder.read("mlflow.json")["run_id"]).data.metrics
    assert logged["psnr_gain"] == pytest.approx(report.metrics["psnr_gain"])
    assert logged["pixel_ap_gaussian_noise_0.2"] == pytest.approx(seen[-1]["pixel_ap"]["value"])


def test_a_model_that_loses_to_a_filter_says_so(report: TaskReport) -> None:
    assert report.metrics["psnr_over_best_other"] < 0
    assert sum("vae loses to" in sentence for sentence in report.warnings) == 2


def test_the_gallery_shows_its_pictures_and_both_tables(report: TaskReport, hospital: Hospital, tmp_path: Path) -> None:
    page = write_gallery(hospital.settings, tmp_path).read_text()
    section = next(part for part in page.split("<section>") if f"{report.task_id}-sweep.png" in part)
    assert f"{report.task_id}-sheet.png" in section and section.count("<table>") == 2
    assert all((tmp_path / f"{report.task_id}-{name}.png").is_file() for name in ("sheet", "sweep"))


@pytest.mark.parametrize(("noise", "warned"), [("gaussian", ["0.3"]), ("coarse", ["0.2", "0.3"])])
def test_a_restorer_is_warned_of_noise_that_it_never_learned(noise: str, warned: list[str]) -> None:
    learned = (DegradationConfig(noise=GaussianNoise(std=0.2)),)
    method = RegressionUnetConfig(widths=(8, 8, 8, 16, 16, 8), degradations=learned).build(32, 1, 2)
    task = DenoiseTask.model_validate({"name": "d", "run": TINY, "noise": noise, "strengths": [0.2, 0.3]})
    said = list(warn_of_strengths(task, method))
    assert [one.split(":")[0] for one in said] == [f"{noise} noise {std}" for std in warned]
    assert all("regression_unet never learned to undo this; it learned gaussian 0.2" in one for one in said)


def test_the_filters_beat_doing_nothing(report: TaskReport) -> None:
    rows = [row for row in report.rows if row.get("level") == 0.4 and row["psnr_gain"]]
    gains = {row["name"]: row["psnr_gain"]["low"] for row in rows}
    assert min(gains["Gaussian filter"], gains["non-local means"]) > 0.5


def test_answers_are_kept_and_do_not_depend_on_their_neighbours(
    hospital: Hospital, task: DenoiseTask, report: TaskReport, trained: TrainedModel, held_out: HeldOut
) -> None:
    problems = make_problems(task, trained, hospital.settings)

    def fail(worse: Batch, rng: Rng) -> Tensor:
        raise AssertionError("it was computed again")

    broken = [replace(one, answers=dict.fromkeys(one.answers, fail)) for one in problems]
    solved = list(solve_all(broken, held_out, task.seed, report.folder))
    batch = held_out.batches[0].part(slice(2, 4))
    for problem, one in zip(problems, solved, strict=True):
        for name in problem.answers:
            alone = problem.answer(name, problem.worsen(batch, task.seed), task.seed)
            torch.testing.assert_close(alone, one.answers[name][2:4], atol=1e-5, rtol=1e-4)


def test_the_original_survives_and_a_painted_spot_is_flagged(hospital: Hospital, task: DenoiseTask) -> None:
    def paint(batch: Batch, rng: Rng) -> Tensor:
        images = batch.images.clone()
        images[..., 12:20, 12:20] = 3.0
        return images

    watch = Watch.open(str(task.judge.detector), find_run(task, hospital.settings), hospital.settings)
    problem = Problem("none", 0.0, lambda batch, rng: batch, {"same": keep, "painted": paint})
    original, same, painted = judge_survival([problem], watch, hospital.settings, task)["none"]
    assert same.pixel_ap is not None and same.pixel_ap_change is not None and same.auroc_change is not None
    assert (same.pixel_ap, same.auroc, same.flagged_normals) == (
        original.pixel_ap,
        original.auroc,
        original.flagged_normals,
    )
    assert (same.pixel_ap_change.value, same.auroc_change.value) == (0, 0)
    assert painted.flagged_normals.value == 1 > original.flagged_normals.value
    assert painted.pixel_ap is not None and painted.pixel_ap.value < same.pixel_ap.value


@pytest.mark.parametrize(
    ("overrides", "error", "names"),
    [
        (["judge.detector=nothing"], ArtefactError, "nothing"),
        (["strengths=[]"], ConfigError, "strengths"),
        (["strengths=[0]"], ConfigError, "strengths"),
        (["judge.lesions_in=[test]"], ConfigError, "test"),
        (["of=[train]"], ConfigError, "train"),
    ],
)
def test_what_cannot_be_done_is_refused(
    hospital: Hospital, task_file: Path, overrides: list[str], error: type[Exception], names: str
) -> None:
    with pytest.raises(error, match=names):
        run_task(load_task_as(DenoiseTask, task_file, overrides), hospital.settings)


def test_a_detector_of_other_images_is_refused_before_training(
    hospital: Hospital, task: DenoiseTask, task_file: Path
) -> None:
    size = "run.data.normaliser.image_size=48"
    other = load_task_as(DenoiseTask, task_file, [size, f"judge.detector={task.judge.detector}"])
    with pytest.raises(ConfigError, match="normaliser"):
        run_task(other, hospital.settings)
