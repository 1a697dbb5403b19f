"""The task `synthesise-training`: the arms, their data, and that synthetic images enter nothing by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.errors import ConfigError, EmptySelection
from pipeline.nn.rng import Rng
from pipeline.stages.generate.run_task import run_task
from pipeline.stages.generate.task_config import load_task_as
from pipeline.stages.generate.task_report import TaskReport
from pipeline.stages.generate.training_data.mixed_images import MixedImages, SyntheticImages, silhouette
from pipeline.stages.generate.training_data.training_arms import (
    EVERYTHING,
    LESIONS,
    LONGER,
    NORMALS,
    PLAIN,
    some_patients,
)
from pipeline.stages.generate.training_data.training_data_task import SynthesiseTrainingTask
from pipeline.stages.run.load_slices import choose
from tests.stages.conftest import Hospital

TASK = """
task: synthesise-training
name: tiny-synthesis
run: run.yaml
detector:
  name: tiny-detector
  data: {data}
  method: {{name: vae, widths: [8, 16], latent: 4}}
  training: {{images: 32, batch_size: 16, validate_every_images: 32}}
  detection: {{residual: {{kind: l1}}}}
lesions: {{painting: {{lesions: {{most: 1}}}}}}
synthetic_share: 0.25
drawn: 8
patients: [0.5, 1.0]
"""


@pytest.fixture(scope="module")
def synthesis_file(task_file: Path) -> Path:
    run = (task_file.parent / "run.yaml").read_text()
    start, end = run.index("data:") + len("data:"), run.index("method:")
    data = "\n" + "\n".join("  " + line for line in run[start:end].strip("\n").splitlines())
    file = task_file.parent / "synthesis.yaml"
    file.write_text(TASK.format(data=data))
    return file


@pytest.fixture(scope="module")
def task(synthesis_file: Path) -> SynthesiseTrainingTask:
    return load_task_as(SynthesiseTrainingTask, synthesis_file)


@pytest.fixture(scope="module")
def report(hospital: Hospital, task: SynthesiseTrainingTask) -> TaskReport:
    return run_task(task, hospital.settings)


def test_every_arm_has_its_place_at_every_share(report: TaskReport) -> None:
    arms = [PLAIN, LONGER, NORMALS, LESIONS, EVERYTHING]
    assert [(row["share"], row["arm"]) for row in report.rows] == [(share, arm) for share in (0.5, 1.0) for arm in arms]
    for row in report.rows:
        assert 0 <= row["auroc"]["value"] <= 1 and row["seconds"] > 0 and len(row["patients"]) == 2
        assert (row["gain"] is None) == (row["arm"] == LONGER)
    images = {row["arm"]: row["images"] for row in report.rows}
    assert images[LONGER] > images[PLAIN] == images[EVERYTHING] == 32
    half, whole = (next(row["patients"] for row in report.rows if row["share"] == share) for share in (0.5, 1.0))
    assert all(few == many // 2 for few, many in zip(half, whole, strict=True))
    assert (report.folder.path / "sweep.png").is_file() and report.folder.sheet.is_file()


def test_a_repeated_task_trains_nothing(
    report: TaskReport, task: SynthesiseTrainingTask, hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.stages.generate.training_data.synthesise_training.run_cell", None)
    assert run_task(task, hospital.settings).metrics == pytest.approx(report.metrics)


def test_synthetic_images_are_marked_and_stay_in_the_task(report: TaskReport, hospital: Hospital) -> None:
    """A run on the same route learns from real slices alone, before and after the task."""
    synthetic = SyntheticImages(Rng(range(3)).uniform(1, 16, 16))
    assert [synthetic[place]["id"] for place in range(3)] == ["synthetic 0", "synthetic 1", "synthetic 2"]
    config = SynthesiseTrainingTask.model_validate(report.folder.read("config.json"))
    with Catalogue.open(hospital.settings) as catalogue:
        chosen = choose(catalogue, config.detector, hospital.settings, sets=("train",))
    assert chosen.slices and not any("synthetic" in ref.slice_id for ref in chosen.slices)


def test_mixed_images_have_the_asked_share() -> None:
    real: Any = [{"id": f"real {number}"} for number in range(6)]
    for count, share in ((50, 0.5), (2, 0.5), (10, 0.25), (1, 0.1)):
        mixed = MixedImages(real, SyntheticImages(torch.zeros(count, 1, 8, 8)), share)
        ids = [mixed[place]["id"] for place in range(len(mixed))]
        assert {item for item in ids if item.startswith("real")} == {f"real {number}" for number in range(6)}
        assert sum(item.startswith("synthetic") for item in ids) / len(ids) == pytest.approx(share, abs=0.05)


def test_a_silhouette_is_the_largest_part_without_holes() -> None:
    image = torch.full((1, 16, 16), -1.0)
    image[0, 3:12, 3:12] = 0.0
    image[0, 6, 6] = -1.0  # a hole
    image[0, 14, 14] = 1.0  # a speck
    body = silhouette(image)
    assert body.sum() == 81 and body[0, 6, 6] and not body[0, 14, 14]
    assert not silhouette(torch.full((1, 16, 16), -1.0)).any()


def test_smaller_shares_are_parts_of_larger_ones(hospital: Hospital, task: SynthesiseTrainingTask) -> None:
    with Catalogue.open(hospital.settings) as catalogue:
        chosen = choose(catalogue, task.detector, hospital.settings, sets=("train",))
    few, many = ({ref.patient_id for ref in some_patients(chosen, share, 0)[0].slices} for share in (0.3, 0.6))
    assert few < many
    with pytest.raises(EmptySelection, match="leaves none"):
        some_patients(chosen, 0.001, 0)


@pytest.mark.parametrize(
    ("overrides", "error", "names"),
    [
        (["patients=[0.001]"], EmptySelection, "leaves none"),
        (["patients=[0]"], ConfigError, "patients"),
        (["patients=[1.5]"], ConfigError, "patients"),
        (["synthetic_share=0"], ConfigError, "synthetic_share"),
        (["synthetic_share=1"], ConfigError, "synthetic_share"),
        (["lesions={}"], ConfigError, "changes nothing"),
        (["lesions={no_such_field: 1}"], ConfigError, "no_such_field"),
        (["run.data.normaliser.image_size=48"], ConfigError, "normaliser"),
        (["run=null", "trained={run: x}"], ConfigError, "a sampler is trained"),
        (["detector.detection=null"], ConfigError, "detection"),
        (["run.method={name: dae, widths: [8, 16]}"], ConfigError, "dae"),
        (["options={temper: 2}"], ConfigError, "temper"),
        (["folds=1"], ConfigError, "folds"),
    ],
)
def test_what_cannot_be_done_is_refused(
    hospital: Hospital, synthesis_file: Path, overrides: list[str], error: type[Exception], names: str
) -> None:
    with pytest.raises(error, match=names):
        run_task(load_task_as(SynthesiseTrainingTask, synthesis_file, overrides), hospital.settings)


def test_synthetic_images_need_an_explicit_share(synthesis_file: Path) -> None:
    text = synthesis_file.read_text().replace("synthetic_share: 0.25\n", "")
    file = synthesis_file.with_name("unsaid.yaml")
    file.write_text(text)
    with pytest.raises(ConfigError, match="synthetic_share"):
        load_task_as(SynthesiseTrainingTask, file)
