"""The task `out-of-domain`: strangers before the gate of each domain, and the gates that it leaves behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.detection.domain_gate import GateConfig, load_gate
from pipeline.errors import ConfigError, TooFewNormals
from pipeline.methods import build_method, parse_method
from pipeline.nn.rng import Rng
from pipeline.stages.generate.robustness.robustness_tasks import OutOfDomainTask
from pipeline.stages.generate.robustness.second_opinion import purification_change, standardise
from pipeline.stages.generate.robustness.strangers import CORRUPTIONS
from pipeline.stages.generate.run_task import run_task
from pipeline.stages.generate.task_config import load_task_as
from pipeline.stages.generate.task_report import TaskReport
from pipeline.stages.run.route_gate import fit_route_gate
from tests.stages.conftest import Hospital
from tests.stages.generate.robustness.test_purify import DDPM

SMALL = ["count=16", "learn=60", "domains=[]", "classes=[relative_position]", "draws=1", "steps=2",
         "attack={steps: 2}", "gate={false_rejection: 0.2, depths: [1, 2]}"]  # fmt: skip


@pytest.fixture(scope="module")
def report(hospital: Hospital, task_file: Path) -> TaskReport:
    return run_task(load_task_as(OutOfDomainTask, task_file, [*DDPM, *SMALL]), hospital.settings)


def test_every_kind_is_judged_by_every_opinion(report: TaskReport) -> None:
    rows, facts = report.rows[:-1], report.rows[-1]
    kinds, opinions = [*CORRUPTIONS, "attacked"], ["gaussian", "neighbours", "purification's change", "both"]
    assert [(row["strangers"], row["opinion"]) for row in rows] == [(k, o) for k in kinds for o in opinions]
    noisy = {row["opinion"]: row["auroc"]["value"] for row in rows if row["strangers"] == "noisy"}
    assert noisy["gaussian"] > 0.9
    assert 0 <= facts["false_rejections"]["value"] <= 1 and report.folder.sheet.is_file()
    assert report.metrics["auroc_noisy"] == noisy["gaussian"]


def test_the_gate_of_the_folder_answers_as_it_did(report: TaskReport, hospital: Hospital) -> None:
    (sha256,) = report.rows[-1]["gates"].values()
    gate = load_gate(report.folder.path / "gates" / "the-route", sha256)
    assert gate.route == "phantom-mr" and gate.config.false_rejection == 0.2
    assert gate.refuses(Rng(range(4)).normal(1, 32, 32).clamp(-1, 1)).all()


def test_a_route_has_a_gate_from_its_own_normals(hospital: Hospital, task_file: Path) -> None:
    run = load_task_as(OutOfDomainTask, task_file, [*DDPM, *SMALL]).run
    assert run is not None
    gate = fit_route_gate(run, hospital.settings, GateConfig(depths=(1, 2), false_rejection=0.2))
    assert gate.calibration is not None and gate.calibration.n == gate.calibration.patients >= 4
    assert gate.images["normaliser"]["image_size"] == gate.size == 32
    assert gate.refuses(Rng(range(4)).normal(1, 32, 32).clamp(-1, 1)).all()


@pytest.mark.parametrize(
    ("overrides", "error", "names"),
    [
        (["gate.false_rejection=0.001"], TooFewNormals, "0.1 %"),
        (["gate.false_rejection=0"], ConfigError, "false_rejection"),
        (["time=0"], ConfigError, "time"),
        (["time=1.2"], ConfigError, "time"),
        (["attack.epsilon=2"], ConfigError, "epsilon"),
        (["of=[train]"], ConfigError, "train"),
        (["run.method={name: vae, widths: [8, 16], latent: 4}"], ConfigError, "purify"),
    ],
)
def test_what_cannot_be_done_is_refused(
    hospital: Hospital, task_file: Path, overrides: list[str], error: type[Exception], names: str
) -> None:
    with pytest.raises(error, match=names):
        run_task(load_task_as(OutOfDomainTask, task_file, [*DDPM, *SMALL, *overrides]), hospital.settings)


def test_corruptions_depend_on_the_row_alone() -> None:
    x, rng = Rng(range(5)).uniform(1, 32, 32, low=-1.0), Rng(range(5))
    for corrupt in CORRUPTIONS.values():
        worse = corrupt(x, rng.fork("a"))
        assert worse.shape == x.shape and not torch.equal(worse, x) and worse.abs().max() <= 1 + 1e-5
        torch.testing.assert_close(corrupt(x[2:3], rng.fork("a").rows([2]))[0], worse[2])


def test_a_model_of_another_size_gives_no_opinion() -> None:
    method = build_method(parse_method({"name": "ddpm", "denoiser": {"widths": [8], "attention": [False]}}), 32)
    x = torch.zeros(3, 1, 32, 32)
    changes = purification_change(method, x, Rng(range(3)), 0.2, 2)
    assert changes.shape == (3,) and (changes > 0).all()
    np.testing.assert_allclose(purification_change(method, x[1:2], Rng([1]), 0.2, 2)[0], changes[1], rtol=1e-4)
    with pytest.raises(ConfigError, match="16"):
        purification_change(method, x[..., :16, :16], Rng(range(3)), 0.2, 2)


def test_scores_are_standardised_by_median_and_deviation() -> None:
    np.testing.assert_allclose(standardise(np.array([5.0, 3.0]), np.array([1.0, 3.0, 5.0])), [1.0, 0.0])
