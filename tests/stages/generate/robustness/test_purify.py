"""The task `purify`: what attacks leave of a classifier and a detector, with and without purification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.errors import ArtefactError, ConfigError, EmptySelection
from pipeline.evaluation.attacks import AttackConfig
from pipeline.evaluation.image_classifier import ImageClassifier
from pipeline.evaluation.robustness import areas, mean_shares
from pipeline.nn.gradients import keep_gradients
from pipeline.nn.rng import Rng
from pipeline.stages.generate.restoration.paired import HeldOut
from pipeline.stages.generate.robustness.attack_defences import attack_all
from pipeline.stages.generate.robustness.defences import NOTHING, NamedDefence
from pipeline.stages.generate.robustness.robustness_tasks import PurifyTask
from pipeline.stages.generate.robustness.victims import Victim, words_of
from pipeline.stages.generate.run_task import run_task
from pipeline.stages.generate.task_config import load_task_as
from pipeline.stages.generate.task_folder import TaskFolder
from pipeline.stages.generate.task_report import TaskReport
from pipeline.types import Batch, RunRef, SliceRef
from tests.stages.conftest import Hospital

NET = "denoiser: {widths: [8, 16], attention: [false, false]}"
DDPM = [f"run.method={{name: ddpm, noise: gaussian, {NET}, start_times: [9], steps: 2}}", "run.name=tiny-ddpm"]
SMALL = ["count=10", "slices=8", "learn=40", "times=[0.1, 0.3]", "steps=2", "classes=[relative_position]",
         "attack={steps: 2, draws: 2}"]  # fmt: skip


@pytest.fixture(scope="module")
def task(task_file: Path, evaluated_run: RunRef) -> PurifyTask:
    detector = f"detector={Path(evaluated_run.path).name}"
    return load_task_as(PurifyTask, task_file, [*DDPM, *SMALL, detector])


@pytest.fixture(scope="module")
def report(hospital: Hospital, task: PurifyTask) -> TaskReport:
    return run_task(task, hospital.settings)


def test_every_defence_has_its_numbers_under_every_attack(report: TaskReport) -> None:
    names = [NOTHING, "median filter, 3 px", "JPEG, quality 50", "purified, t* 0.1", "purified, t* 0.3"]
    measures = ["accuracy", "AUROC", "lesions above threshold", "normals above threshold"]
    assert [(row["measure"], row["defence"]) for row in report.rows] == [(m, n) for m in measures for n in names]
    for row in report.rows:
        values = [row[kind]["value"] for kind in ("clean", "unaware", "adaptive")]
        assert all(0 <= value <= 1 for value in values)
        if row["measure"] in ("accuracy", "AUROC", "lesions above threshold"):
            assert values[2] <= values[1] + 1e-9, "whoever knows the defence does at least as much"
    assert (report.folder.path / "sweep.png").is_file() and report.folder.sheet.is_file()
    assert report.table.count("| nothing") == 4


def test_a_repeated_task_attacks_nothing_again(
    report: TaskReport, task: PurifyTask, hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.stages.generate.robustness.attack_defences.attack", None)
    again = run_task(task, hospital.settings)
    values = [[row[kind] for kind in ("clean", "unaware", "adaptive")] for row in report.rows]
    assert [[row[kind] for kind in ("clean", "unaware", "adaptive")] for row in again.rows] == values


@pytest.mark.parametrize(
    ("overrides", "error", "names"),
    [
        (["times=[0]"], ConfigError, "times"),
        (["times=[1.5]"], ConfigError, "times"),
        (["times=[0.1, 0.1]"], ConfigError, "distinct"),
        (["attack.epsilon=0"], ConfigError, "epsilon"),
        (["attack.epsilon=3"], ConfigError, "epsilon"),
        (["jpeg_quality=0"], ConfigError, "jpeg_quality"),
        (["classes=[]"], ConfigError, "something to defend"),
        (["detector=nothing"], ArtefactError, "nothing"),
        (["lesions_in=[test]"], ConfigError, "test"),
        (["run.method={name: vae, widths: [8, 16], latent: 4}"], ConfigError, "purify"),
        (["of=[gate]"], EmptySelection, "gate"),
    ],
)
def test_what_cannot_be_done_is_refused(
    hospital: Hospital, task_file: Path, overrides: list[str], error: type[Exception], names: str
) -> None:
    with pytest.raises(error, match=names):
        run_task(load_task_as(PurifyTask, task_file, [*DDPM, *SMALL, *overrides]), hospital.settings)


def test_a_detector_of_another_size_is_refused_before_training(
    hospital: Hospital, task: PurifyTask, task_file: Path
) -> None:
    size = ["run.data.normaliser.image_size=48", f"detector={task.detector}"]
    with pytest.raises(ConfigError, match="normaliser"):
        run_task(load_task_as(PurifyTask, task_file, [*DDPM, *SMALL, *size]), hospital.settings)


def brightness(batch: Batch, x: Tensor) -> Tensor:
    return (x.flatten(1).mean(dim=1) > 0).double()


def bright_victim(batch: Batch) -> Victim:
    """A classifier that calls an image right while its mean is above 0."""
    refs = tuple(_ref(item) for item in batch.ids)
    return Victim(
        "classifier",
        HeldOut((batch,), refs),
        lambda batch: lambda x, rng: -x.flatten(1).mean(dim=1),
        brightness,
        lambda batch: torch.zeros(len(batch.ids), dtype=torch.bool),
    )


def _ref(item: str) -> SliceRef:
    return SliceRef(**{**dict.fromkeys(SliceRef.__dataclass_fields__, ""), "patient_id": item})  # type: ignore[arg-type]


def test_only_an_attack_that_knows_the_defence_gets_past_it(tmp_path: Path) -> None:
    """The defence turns images round whose mean is below -0.04, as the plain attack leaves them."""
    batch = Batch(torch.full((4, 1, 8, 8), 0.03), torch.ones(4, 1, 8, 8, dtype=torch.bool), tuple("abcd"), ({},) * 4)
    nothing = NamedDefence(NOTHING, lambda x, rng: x, lambda x, rng: x)

    def shift(x: Tensor, rng: Rng) -> Tensor:
        return torch.where(x.mean(dim=(1, 2, 3), keepdim=True) < -0.04, -x, x)

    turning = NamedDefence("turning", shift, shift)
    attacked = attack_all(
        bright_victim(batch), [nothing, turning], AttackConfig(epsilon=0.1, steps=12), 0, TaskFolder(tmp_path)
    )
    means = {key: float(value.mean()) for key, value in attacked.values.items()}
    assert means[NOTHING, "clean"] == 1 and means[NOTHING, "unaware"] == means[NOTHING, "adaptive"] == 0
    assert means["turning", "clean"] == means["turning", "unaware"] == 1
    assert means["turning", "adaptive"] == 0


def test_the_classifier_learns_and_has_the_gradient_of_its_logits() -> None:
    x = Rng(range(40)).uniform(1, 64, 64, low=-0.2, high=0.2)
    words = ["bright" if number % 2 else "dark" for number in range(40)]
    x[1::2] += 0.7
    classifier = ImageClassifier(x[:20], words[:20])
    guessed = classifier.logits(x[20:]).argmax(dim=1)
    assert torch.equal(guessed, classifier.numbers(words[20:]))
    assert classifier.numbers(["unheard of"]).tolist() == [-1]
    with keep_gradients():
        one = x[:1].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(classifier.logits(one)[:, 1].sum(), one)
    assert gradient.isfinite().all() and gradient.any()


def test_positions_are_cut_into_thirds() -> None:
    about = [{"relative_position": value, "sex": "F"} for value in (0.0, 0.5, 1.0)] + [{}]
    assert words_of(about, ["relative_position"]) == ["lower third", "middle third", "upper third", "unknown"]


def test_shares_and_areas_are_those_of_the_textbook() -> None:
    patients = [f"p{number}" for number in range(8)]
    shares = mean_shares({"all": np.ones(8), "half": np.arange(8) % 2}, patients)
    assert (shares["all"].value, shares["half"].value) == (1, 0.5)
    assert shares["half"].low is not None and shares["half"].low < 0.5
    abnormal = np.arange(8) >= 4
    rows = areas({"right": np.arange(8.0), "wrong": -np.arange(8.0)}, abnormal, patients)
    assert (rows["right"].value, rows["wrong"].value) == (1, 0)
