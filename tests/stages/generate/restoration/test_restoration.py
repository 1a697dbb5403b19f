"""The tasks that undo a degradation: classical answers, models beside them, posterior sampling, and bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.corruption.degrade import DegradationConfig
from pipeline.diffusion.posterior import PosteriorConfig
from pipeline.errors import ConfigError
from pipeline.methods import build_method, parse_method
from pipeline.nn.rng import Rng
from pipeline.stages.generate.restoration.classical_denoisers import tune
from pipeline.stages.generate.restoration.classical_restorers import plain_answers
from pipeline.stages.generate.restoration.known_degradation import KnownDegradation
from pipeline.stages.generate.restoration.paired import Problem
from pipeline.stages.generate.restoration.restoration_answers import answers_of_model, put_back
from pipeline.stages.generate.restoration.restoration_tasks import InpaintTask, RestoreTask, SuperResolveTask
from pipeline.stages.generate.restoration.run_restoration import run_restoration
from pipeline.stages.generate.run_task import run_task
from pipeline.stages.generate.task_base import TaskConfig
from pipeline.stages.generate.task_config import load_task_as
from pipeline.stages.generate.task_report import TaskReport
from pipeline.types import Batch, RunRef
from tests.stages.conftest import Hospital

TINY_UNET = "run.method={name: regression_unet, widths: [8, 8, 8, 16, 16, 8], lr: 0.003}"
TINY_DDPM = "run.method={name: ddpm, denoiser: {widths: [8, 16], attention: [false, false]}, noise: gaussian}"
TINY_DRAWS = (
    "{method: {name: conditional_ddpm, denoiser: {widths: [8, 16], attention: [false, false]}, steps: 2, draws: 2}, "
    "images: 16}"
)


def make_problem(steps: list[dict[str, Any]], noise: dict[str, Any] | None = None) -> tuple[Problem, KnownDegradation]:
    way = DegradationConfig.model_validate({"steps": steps, "noise": noise})
    degradation = KnownDegradation(way, seed=3)
    plain, settable = plain_answers(degradation)
    problem = Problem(degradation.name, 0.0, degradation.degrade, plain, degradation.region)
    return Problem(
        degradation.name,
        0.0,
        degradation.degrade,
        plain | tune(problem, [rings(4, 1)], settable, 3),
        degradation.region,
    ), degradation


def rings(count: int, first: int = 0) -> Batch:
    """Smooth rings within a round body."""
    axes = torch.meshgrid(*[torch.linspace(-1, 1, 32)] * 2, indexing="ij")
    radius = torch.stack(axes).square().sum(dim=0).sqrt()
    body = (radius < 0.8).expand(count, 1, 32, 32)
    number = torch.arange(first, first + count)[:, None, None, None]
    images = torch.where(body, 0.6 * torch.cos((6 + number) * radius) + 0.2 * axes[0], -1.0)
    return Batch(images, body, tuple(f"image-{one}" for one in number.flatten().tolist()))


@pytest.mark.parametrize(
    ("steps", "noise", "names", "gain"),
    [
        ([{"kind": "downsample", "factor": 2}], None, ["pixels repeated", "bicubic"], 2),
        ([{"kind": "box"}], None, ["mean of the rest", "biharmonic"], 1),
        ([{"kind": "cartesian", "acceleration": 3}], None, ["zero-filling", "total variation"], 0.5),
        ([{"kind": "blur"}], {"kind": "gaussian", "std": 0.02}, ["nothing", "Wiener", "Richardson-Lucy"], 0.5),
        ([], {"kind": "rician", "std": 0.3}, ["nothing", "Gaussian filter", "non-local means", "total variation"], 1),
    ],
)
def test_every_classical_answer_beats_the_plainest(
    steps: list[dict[str, Any]], noise: dict[str, Any] | None, names: list[str], gain: float
) -> None:
    problem, degradation = make_problem(steps, noise)
    worse = problem.worsen(rings(6), 3)
    assert list(problem.answers) == names and worse.target is not None
    region = problem.region(worse).float()
    errors = [
        float(((problem.answer(name, worse, 3) - worse.target).square() * region).sum()) for name in problem.answers
    ]
    assert all(10 * torch.tensor(errors[0] / error).log10() > gain for error in errors[1:])
    if noise is None:
        operator = degradation.operator(worse)
        torch.testing.assert_close(operator.show(operator.forward(worse.target)), worse.images, atol=1e-6, rtol=0)


def test_what_is_known_of_a_hole_is_put_back() -> None:
    problem, degradation = make_problem([{"kind": "strokes"}])
    worse = problem.worsen(rings(3), 3)
    assert degradation.only_hides and worse.condition is not None and worse.target is not None
    filled = put_back(lambda batch, rng: torch.full_like(batch.images, 0.7))(worse, None)  # type: ignore[arg-type]
    hole = worse.condition > 0
    assert torch.equal(filled[~hole], worse.target[~hole]) and torch.equal(
        filled[hole], torch.full_like(filled[hole], 0.7)
    )
    assert torch.equal(problem.region(worse), hole & worse.body)


def test_a_prior_of_codes_draws_holes_and_nothing_else() -> None:
    tiny = {"name": "vqgan", "widths": [4, 8], "entries": 8, "code_width": 4, "perceptual_weight": 0}
    method = build_method(parse_method({**tiny, "answer": "restoration"}), 32)
    problem, degradation = make_problem([{"kind": "box"}])
    answers = answers_of_model(method, degradation, PosteriorConfig())
    assert list(answers) == ["vqgan", "vqgan, codes drawn"]
    worse = problem.worsen(rings(2), 3)
    filled = answers["vqgan, codes drawn"](worse, Rng.scoring(3, worse.ids))
    assert worse.condition is not None and torch.equal(filled[worse.condition == 0], worse.images[worse.condition == 0])
    _, smaller = make_problem([{"kind": "downsample", "factor": 2}])
    assert list(answers_of_model(method, smaller, PosteriorConfig())) == ["vqgan"]


@pytest.fixture(scope="module")
def enlarged(hospital: Hospital, task_file: Path, evaluated_run: RunRef) -> TaskReport:
    detector = f"judge.detector={Path(evaluated_run.path).name}"
    changes = [TINY_UNET, "count=8", "factors=[4]", f"beside=[{TINY_DRAWS}]", detector, "judge.patients=6"]
    return run_task(load_task_as(SuperResolveTask, task_file, changes), hospital.settings)


def test_enlarged_images_are_judged_beside_bicubic_and_by_a_detector(enlarged: TaskReport) -> None:
    pairs = [row for row in enlarged.rows if "psnr" in row]
    names = [
        "pixels repeated",
        "bicubic",
        "conditional_ddpm, one draw",
        "conditional_ddpm, mean of 2",
        "regression_unet",
    ]
    assert [row["name"] for row in pairs] == names
    assert pairs[1]["psnr_gain"]["low"] > 0.1
    seen = [row for row in enlarged.rows if "auroc" in row]
    assert [row["name"] for row in seen] == ["original", *names]
    assert all(row["flagged_normals"] is not None for row in seen), "does it invent lesions"
    assert enlarged.folder.sheet.is_file()


def test_methods_learn_the_degradations_of_their_task(enlarged: TaskReport) -> None:
    config = enlarged.folder.read("config.json")
    for method in (config["run"]["method"], config["beside"][0]["method"]):
        assert [way["steps"][0]["factor"] for way in method["degradations"]] == [4]


def test_a_model_is_warned_of_what_it_never_learned(
    hospital: Hospital, task_file: Path, enlarged: TaskReport, tmp_path: Path
) -> None:
    assert not any("never learned" in one for one in enlarged.warnings)
    trained = "trained={run: " + enlarged.folder.read("task.json")["run"] + "}"
    file = tmp_path / "task.yaml"
    file.write_text("task: inpaint\nname: other\n")
    report = run_task(load_task_as(InpaintTask, file, [trained, "count=4", "masks=[{kind: box}]"]), hospital.settings)
    assert "regression_unet never learned to undo this; it learned downsampled 4" in report.warnings[0]


def test_a_ddpm_fills_holes_without_having_learned_to(hospital: Hospital, task_file: Path) -> None:
    changes = [TINY_DDPM, "count=4", "masks=[{kind: box}]", "posterior={steps: 2, repeats: 2, iterations: 2}"]
    report = run_task(load_task_as(InpaintTask, task_file, changes), hospital.settings)
    names = [row["name"] for row in report.rows]
    assert names == ["mean of the rest", "biharmonic", "ddpm, guided", "ddpm, DDRM", "ddpm, repaint"]
    assert all(row["psnr"]["value"] < 100 for row in report.rows)


@pytest.mark.parametrize(
    ("kind", "overrides", "names"),
    [
        (SuperResolveTask, [TINY_UNET, "factors=[5]"], "5"),
        (SuperResolveTask, ["factors=[1]"], "factors"),
        (SuperResolveTask, ["run.method={name: knn_features}"], "knn_features"),
        (InpaintTask, [TINY_DDPM.replace("gaussian", "coarse")], "coarse"),
        (InpaintTask, [TINY_UNET, "masks=[{kind: rectangles, boxes: [[0, 0, 1, 1]]}]"], "every pixel"),
        (InpaintTask, [TINY_UNET, "masks=[{kind: rectangles, boxes: [[0.5, 0, 0.2, 1]]}]"], "empty"),
        (RestoreTask, [TINY_UNET, "degradations=[{noise: {kind: poisson}}]"], "poisson"),
        (RestoreTask, [TINY_UNET, "degradations=[]"], "degradations"),
        (RestoreTask, [TINY_UNET, "degradations=[{steps: [{kind: blur}]}, {steps: [{kind: blur}]}]"], "same name"),
        (RestoreTask, [TINY_UNET, "beside=[{method: {name: regression_unet}}]"], "regression_unet"),
    ],
)
def test_what_cannot_be_done_is_refused_before_training(
    hospital: Hospital, task_file: Path, kind: type[TaskConfig], overrides: list[str], names: str
) -> None:
    def run() -> None:
        config: Any = load_task_as(kind, task_file, overrides)
        run_restoration(config, hospital.settings)

    before = count_runs(hospital)
    with pytest.raises(ConfigError, match=names):
        run()
    assert count_runs(hospital) == before


def count_runs(hospital: Hospital) -> int:
    return sum(1 for _ in hospital.settings.runs.glob("*")) if hospital.settings.runs.is_dir() else 0
