"""The task `control`: masks and edges of held-out images are followed, judged beside the plainest, and bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pipeline.config import apply_override
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.errors import ConfigError
from pipeline.methods import build_method, parse_method
from pipeline.methods.controlnet import Controlnet
from pipeline.nn.rng import Rng
from pipeline.stages.generate.run_task import run_task
from pipeline.stages.generate.task_config import load_task
from pipeline.stages.generate.trained_model import TrainedModel, train_for
from pipeline.stages.generate.translation import run_control
from pipeline.stages.generate.translation.control_images import Asked, paste_flat, read_asked
from pipeline.stages.generate.translation.control_task import ControlTask
from pipeline.stages.generate.translation.run_control import FLAT, NOTHING, OWN, REAL, require_control
from pipeline.stages.run.learning_sets import learning_sets
from pipeline.types import SliceRef
from tests.stages.conftest import Hospital

BASE = {"method": {"name": "ddpm", "denoiser": {"widths": [8, 16], "attention": [False, False]}}}
TASK: dict[str, Any] = {
    "task": "control",
    "name": "tiny-control",
    "run": {
        "name": "tiny-control",
        "data": {
            "route": "phantom-mr",
            "normaliser": {"kind": "mr_percentile", "image_size": 32},
            "splits": {
                "normals": {"train": 0.3, "validate": 0.25, "calibrate": 0.2, "develop": 0.15, "test": 0.1},
                "others": {"develop": 0.6, "test": 0.4},
            },
        },
        "method": {"name": "controlnet", "base": BASE, "control": "edges"},
        "training": {"images": 64, "batch_size": 16, "validate_every_images": 64},
    },
    "of": ["validate"],
    "count": 6,
    "steps": 2,
    "segmenter": 2,
}
LESION = ("run.method.control=lesion", "run.masks={labelled_in: [develop]}")


def write(folder: Path, *changes: str) -> Path:
    values = yaml.safe_load(yaml.safe_dump(TASK))
    for change in changes:
        apply_override(values, change)
    (folder / "task.yaml").write_text(yaml.safe_dump(values))
    return folder / "task.yaml"


def task_of(folder: Path, *changes: str) -> ControlTask:
    task = load_task(write(folder, *changes))
    assert isinstance(task, ControlTask)
    return task


def test_edges_are_followed_beside_images_without_any(hospital: Hospital, tmp_path: Path) -> None:
    report = run_task(task_of(tmp_path), hospital.settings)
    assert [row["name"] for row in report.rows] == [NOTHING, OWN]
    assert set(report.metrics) == {"followed", "kid"} and report.folder.sheet.stat().st_size > 10_000


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> ControlTask:
    return task_of(tmp_path_factory.mktemp("lesions"), *LESION)


@pytest.fixture(scope="module")
def trained(hospital: Hospital, task: ControlTask) -> TrainedModel:
    return train_for(task, hospital.settings, require_control)


def test_masks_of_labelled_slices_are_learned_as_they_lie(hospital: Hospital, trained: TrainedModel) -> None:
    with Catalogue.open(hospital.settings) as catalogue:
        learned = learning_sets(trained.run, hospital.settings, catalogue)["train"]
    assert {ref.label for ref in learned.slices} == {"normal", "abnormal"}
    asked = read_asked(trained, hospital.settings, ("train", "develop"), None, 0)
    full = [bool(mask.any()) for mask in asked.pictures]
    assert full == [ref.label == "abnormal" for ref in asked.refs] and any(full)
    inside, normal = asked.with_lesions(), asked.without().images.mean(dim=0)
    unlike = (inside.images - normal).abs()
    for wrong in (inside.pictures.flip(-1), inside.pictures.flip(-2)):
        assert (unlike * inside.pictures).sum() > 1.05 * (unlike * wrong).sum(), "masks lie on their lesions"


def test_lesions_are_judged_by_what_real_ones_teach(
    hospital: Hospital, task: ControlTask, trained: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = task.model_copy(update={"of": ("develop",)})  # past the configuration's check: no other set has lesions
    with pytest.raises(ConfigError, match="learned from develop"):
        run_task(same, hospital.settings)
    monkeypatch.setattr(run_control, "refuse_learned", lambda config, trained: None)
    report = run_task(same, hospital.settings)
    assert [row["name"] for row in report.rows] == [REAL, NOTHING, FLAT, OWN]
    assert [row["name"] for row in report.rows if "taught" in row] == [REAL, FLAT, OWN]
    assert set(report.metrics) == {"followed", "kid", "taught"}


def test_flat_lesions_have_the_contrast_of_a_real_one() -> None:
    pictures = torch.zeros(1, 1, 16, 16)
    pictures[..., 4:8, 4:8] = 1
    moved = pictures.roll(3, dims=-1)
    real = Asked(0.1 + 0.4 * pictures, pictures, (SliceRef("a", 0, "a", "p", "p", "a", {}, 0.5),))
    pasted = paste_flat(torch.full((2, 1, 16, 16), -0.5), moved.expand(2, -1, -1, -1), real, Rng([1, 2]))
    torch.testing.assert_close(pasted, (-0.5 + 0.4 * moved).expand(2, -1, -1, -1))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (("run.method.control=lesion",), "masks"),
        (("run.masks={}",), "masks"),
        ((*LESION, "of=[develop]"), "learns from develop"),
        (("of=[test]",), "test"),
        (("run.method={name: vae}",), "controlnet"),
        (("steps=0",), "steps"),
    ],
)
def test_what_cannot_be_asked_is_refused(tmp_path: Path, changes: tuple[str, ...], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_task(write(tmp_path, *changes))


def test_a_picture_of_another_grid_is_refused_and_a_base_that_cannot_be_copied() -> None:
    method = build_method(parse_method({"name": "controlnet", "base": BASE}), 32)
    assert isinstance(method, Controlnet)
    for wrong in (torch.zeros(2, 1, 16, 16), torch.full((2, 1, 32, 32), 0.5)):
        with pytest.raises(ConfigError, match="picture"):
            method.sample(Rng([1, 2]), steps=1, condition=wrong)
    for other in ({"name": "vae"}, {"name": "ddpm", "denoiser": {"kind": "dit"}}):
        with pytest.raises(ConfigError, match="controlled"):
            build_method(parse_method({"name": "controlnet", "base": {"method": other}}), 32)
