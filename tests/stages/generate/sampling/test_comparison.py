"""A comparison of samplers: a row each beside real images, and one that fails does not stop the others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.stages.generate.sampling import compare_samplers as compare_stage
from pipeline.stages.generate.sampling import draw_apart as draw_stage
from pipeline.stages.generate.sampling.compare_samplers import ComparisonReport, compare_samplers
from pipeline.stages.generate.sampling.comparison_config import load_comparison
from pipeline.stages.generate.task_config import SampleTask
from tests.stages.conftest import Hospital

FILE = """
name: tiny-samplers
base: {file: task.yaml, set: [run.training.images=32]}
samplers:
  - {name: eigen, method: {name: pca, directions: 4}}
  - {name: broken, method: {name: vae, widths: [8, 16], latent: 4, lr: 1.0e+30}}
  - {name: vae, method: vae.yaml, change: {latent: 3}, seeds: [0, 1]}
"""


@pytest.fixture(scope="module")
def file(task_file: Path) -> Path:
    (task_file.parent / "vae.yaml").write_text("name: vae\nwidths: [8, 16]\n")
    (task_file.parent / "compare.yaml").write_text(FILE)
    return task_file.parent / "compare.yaml"


@pytest.fixture(scope="module")
def report(hospital: Hospital, file: Path) -> ComparisonReport:
    return compare_samplers(file, hospital.settings)


def test_every_sampler_has_its_rows_beside_real_images(report: ComparisonReport) -> None:
    lines = [line.split("|") for line in report.markdown.splitlines() if line.startswith("|")][2:]
    assert [line[1].strip() for line in lines] == ["real against real", "eigen", "vae, seed 0", "vae, seed 1"]
    assert list(report.failures) == ["broken"]
    assert {file.name for file in Path(report.folder).iterdir()} == {
        "eigen.png",
        "kid.png",
        "leaderboard.md",
        "rows.json",
        "vae-0.png",
        "vae-1.png",
    }


def test_finished_samplers_are_not_trained_again(
    report: ComparisonReport, hospital: Hospital, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = sorted(hospital.settings.runs.glob("*/model/weights.safetensors"))
    before = [weights.stat().st_mtime_ns for weights in trained]
    again = compare_samplers(file, hospital.settings)
    assert [weights.stat().st_mtime_ns for weights in trained] == before
    assert again.markdown == report.markdown


def test_chosen_samplers_run_alone_and_others_keep_their_rows(
    report: ComparisonReport, hospital: Hospital, file: Path
) -> None:
    chosen = compare_samplers(file, hospital.settings, only=["eigen"])
    rows = [line for line in chosen.markdown.splitlines() if line.startswith("|")]
    assert rows == [line for line in report.markdown.splitlines() if line.startswith("|")]
    assert "earlier runs on the same images: vae, seed 0, vae, seed 1.\n" in chosen.markdown
    assert "broken" not in chosen.markdown
    assert f"nightread generate compare {file} --only eigen\n" in chosen.markdown
    with pytest.raises(ConfigError, match="eigens"):
        compare_samplers(file, hospital.settings, only=["eigens"])


@pytest.mark.slow
def test_processes_draw_what_one_would(report: ComparisonReport, hospital: Hospital, file: Path) -> None:
    (file.parent / "apart.yaml").write_text(
        FILE.replace("tiny-samplers", "apart").replace("seeds: [0, 1]", "seeds: [2]")
    )
    one_more, said = file.parent / "apart.yaml", []
    apart = compare_samplers(one_more, hospital.settings, say=said.append, workers=2)
    assert {text for text in said if text.endswith("drawn")} == {"eigen is drawn", "vae is drawn"}
    assert list(apart.failures) == ["broken"] and apart.failures == report.failures, "asked once, by either"
    names = lambda page: [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("|")][2:]  # noqa: E731
    assert names(apart.markdown) == ["real against real", "eigen", "vae"]


def test_a_fault_in_one_sampler_stops_no_other(
    report: ComparisonReport, hospital: Hospital, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = compare_stage.open_task

    def open_or_fail(task: SampleTask, *more: Any) -> Any:
        if task.run is not None and task.run.method.name == "pca":
            raise RuntimeError("Doe, Jane")
        return original(task, *more)

    monkeypatch.setattr(compare_stage, "open_task", open_or_fail)
    said: list[str] = []
    other = compare_samplers(file, hospital.settings, say=said.append)
    assert set(other.failures) == {"eigen", "broken"} and "vae, seed 1" in other.markdown
    assert "RuntimeError" in other.failures["eigen"] and "Doe" not in other.markdown + "".join(said)


class _Killed(ThreadPoolExecutor):
    """A pool whose process is killed while the sampler "b" trains."""

    def __init__(self, workers: int, _: Any) -> None:
        super().__init__(workers)

    def submit(self, work: Any, task: SampleTask, settings: Any) -> Any:
        return super().submit(self._work, task)

    def _work(self, task: SampleTask) -> str:
        if task.name == "b":
            raise BrokenProcessPool("terminated abruptly")
        return ""


def test_a_killed_process_is_named_and_stops_no_other(
    hospital: Hospital, task: SampleTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draw_stage, "ProcessPoolExecutor", _Killed)
    said: list[str] = []
    tasks = [(name, task.model_copy(update={"name": name})) for name in "abc"]
    failures = draw_stage.draw_apart(tasks, hospital.settings, 2, said.append)
    assert failures == {"b": draw_stage.ENDED} and len(said) == 3


def test_names_are_unique(file: Path, tmp_path: Path) -> None:
    (tmp_path / "twice.yaml").write_text(FILE.replace("name: broken", "name: eigen"))
    with pytest.raises(ConfigError, match="eigen"):
        load_comparison(tmp_path / "twice.yaml")
