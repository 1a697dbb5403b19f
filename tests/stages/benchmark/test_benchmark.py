"""A benchmark goes on where it stopped, isolates failures, chooses on develop, and opens test once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.errors import ConfigError
from pipeline.stages.benchmark import run as stage
from pipeline.stages.benchmark.config import Benchmark
from pipeline.stages.benchmark.final_tables import finish
from pipeline.stages.benchmark.leaderboard import LeaderRow, chosen_cells, corrected
from pipeline.stages.benchmark.run import (
    make_benchmark_folder,
    note_crash,
    prepare,
    read_finished,
    read_result,
    run_group,
)
from pipeline.stages.choose.compare_runs import compare_runs
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking.registry import list_registered
from pipeline.types import RunRef

pytestmark = pytest.mark.slow  # trains, calibrates and measures three runs
COMMAND = "nightread benchmark configs/benchmarks/tiny.yaml"


@pytest.fixture(scope="module")
def bench(hospital: Any) -> Benchmark:
    """The benchmark with every group computed in this process; test is not opened yet."""
    benchmark = Benchmark.read(hospital.benchmark_file)
    for method, seed in prepare(benchmark, hospital.settings):
        run_group(benchmark, method, seed, hospital.settings)
    return benchmark


def test_a_broken_method_fails_its_cells_only_and_says_why(hospital: Any, bench: Benchmark) -> None:
    states = {cell.key: (read_result(bench, cell, hospital.settings) or {})["state"] for cell in bench.cells()}
    assert states == {
        "ae.own.0": "done",
        "ae.smooth.0": "done",
        "broken.own.0": "failed",
        "broken.smooth.0": "failed",
        "both.own.0": "done",
        "small.own.0": "done",
        "small.own.1": "done",
        "pair.own.0": "done",
    }
    report = finish(bench, hospital.settings, COMMAND)
    assert "broken failed: " in report.markdown
    assert report.failures["broken.own.0"].startswith("Training of ae diverged")
    assert COMMAND in report.markdown


def test_scores_share_one_trained_model(hospital: Any, bench: Benchmark) -> None:
    own, smooth = (read_result(bench, cell, hospital.settings) for cell in list(bench.cells())[:2])
    folders = [RunFolder.open(RunRef(**result["run"])) for result in (own, smooth) if result]
    named = [json.loads((folder.detector / "detector.json").read_text())["models"][0] for folder in folders]
    assert named[0]["sha256"] == named[1]["sha256"]
    assert [folder.model.exists() for folder in folders] == [True, False]
    assert folders[0].path != folders[1].path
    assert folders[1].read("origin.json")["run"] == folders[0].run_id
    assert own and smooth and own["training_seconds"] == smooth["training_seconds"] > 0
    assert own["parameters"] == smooth["parameters"] > 1000
    assert json.loads((folders[1].detector / "detector.json").read_text())["two_sided"]["slices"] >= 10


def test_an_ensemble_is_made_of_its_members_runs(hospital: Any, bench: Benchmark) -> None:
    results = {cell.key: read_result(bench, cell, hospital.settings) or {} for cell in bench.cells()}
    ensemble, members = results["both.own.0"], [results["ae.own.0"], results["small.own.0"]]
    config = RunFolder.open(RunRef(**ensemble["run"])).read_config()
    assert [member.sha256 for member in config.method.members] == [member["run"]["sha256"] for member in members]
    assert ensemble["parameters"] == sum(member["parameters"] for member in members)
    assert ensemble["training_seconds"] >= sum(member["training_seconds"] for member in members)


def test_an_ensemble_over_seeds_is_made_of_every_training(hospital: Any, bench: Benchmark) -> None:
    results = {cell.key: read_result(bench, cell, hospital.settings) or {} for cell in bench.cells()}
    config = RunFolder.open(RunRef(**results["pair.own.0"]["run"])).read_config()
    trainings = [results[f"small.own.{seed}"]["run"]["sha256"] for seed in (0, 1)]
    assert [member.sha256 for member in config.method.members] == trainings
    assert trainings[0] != trainings[1]


def test_the_seeds_mean_is_what_is_compared_with_the_best_control(hospital: Any, bench: Benchmark) -> None:
    finish(bench, hospital.settings, COMMAND)
    (board,) = make_benchmark_folder(bench, hospital.settings).read("leaderboard.json")
    row = next(row for row in board["rows"] if row["name"] == "small")
    areas = [
        figures["auroc_central" if board["part"] == "central slices" else "auroc"] for figures in row["seeds"].values()
    ]
    assert len(areas) == 2
    assert row["against"]["auroc_first"] == pytest.approx(sum(areas) / 2)
    assert row["against"]["first"] == "small, mean of 2 seeds"


def test_cells_stay_out_of_the_registry(hospital: Any, bench: Benchmark) -> None:
    results = [read_result(bench, cell, hospital.settings) or {} for cell in bench.cells()]
    runs = {RunFolder.open(RunRef(**result["run"])).run_id for result in results if "run" in result}
    assert len(runs) == 6
    assert not runs & list_registered(hospital.settings, "phantom-mr").keys()


def test_finished_cells_are_never_computed_again(
    hospital: Any, bench: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []

    def note(benchmark: Benchmark, cell: Any, settings: Settings) -> dict[str, Any]:
        computed.append(cell.key)
        raise RuntimeError("not a NightreadError")

    assert prepare(bench, hospital.settings) == [("broken", 0)]  # failed cells are retried
    monkeypatch.setattr(stage, "_computed", note)
    for method, seed in bench.groups():
        run_group(bench, method, seed, hospital.settings)
    assert computed == ["broken.own.0", "broken.smooth.0"]
    failure = read_result(bench, list(bench.cells())[2], hospital.settings)
    assert failure and failure["reason"].startswith("RuntimeError at")  # kind and place, nothing of its text


def test_a_cell_that_was_lost_is_the_only_one_computed(hospital: Any, bench: Benchmark) -> None:
    """As after a kill between training and the cell's file: the trained run is found, not trained a second time."""
    cell = next(iter(bench.cells()))
    before = read_result(bench, cell, hospital.settings)
    (make_benchmark_folder(bench, hospital.settings).path / "cells" / f"{cell.key}.json").unlink()
    assert read_finished(bench, cell, hospital.settings) is None
    run_group(bench, "ae", 0, hospital.settings)
    after = read_result(bench, cell, hospital.settings)
    assert before and after and after["run"] == before["run"]
    assert after["develop"] == before["develop"]


def test_another_configuration_is_another_cell(hospital: Any, bench: Benchmark, tmp_path: Any) -> None:
    text = hospital.benchmark_file.read_text().replace("file: run.yaml", f"file: {hospital.run_file}")
    (tmp_path / "b.yaml").write_text(text.replace("images: 64", "images: 80"))
    changed = Benchmark.read(tmp_path / "b.yaml")
    state = {cell.key: read_finished(changed, cell, hospital.settings) is not None for cell in changed.cells()}
    assert state["ae.own.0"] and not state["small.own.0"]


def test_test_is_opened_once_for_the_frozen_choice(hospital: Any, bench: Benchmark, tmp_path: Any) -> None:
    settings: Settings = hospital.settings

    def openings() -> list[str]:
        with Catalogue.open(settings) as catalogue:
            return [opening.purpose for opening in catalogue.list_test_openings()]

    finish(bench, settings, COMMAND)
    assert openings() == []  # develop alone opens nothing
    report = finish(bench, settings, COMMAND, open_test="final table")
    assert openings() == ["final table"] * 5  # one per training of each method that has a choice
    again = finish(bench, settings, COMMAND, open_test="final table")
    assert openings() == ["final table"] * 5
    assert again.markdown == report.markdown
    assert report.markdown.startswith("# tiny: test set")
    text = hospital.benchmark_file.read_text().replace("file: run.yaml", f"file: {hospital.run_file}")
    (tmp_path / "b.yaml").write_text(text.replace("kind: ssim", "kind: l2"))
    with pytest.raises(ConfigError, match="opened"):
        finish(Benchmark.read(tmp_path / "b.yaml"), settings, COMMAND, open_test="another look")


def test_the_table_has_methods_controls_costs_and_verdicts(hospital: Any, bench: Benchmark) -> None:
    finish(bench, hospital.settings, COMMAND)
    folder = make_benchmark_folder(bench, hospital.settings)
    (board,) = folder.read("leaderboard.json")
    rows = {row["name"]: row for row in board["rows"]}
    assert {"ae", "small", "broken", "brightness"} <= rows.keys()
    assert rows["ae"]["supervision"] == "normals"
    assert rows["ae"]["against"]["test"] == "paired patient bootstrap"
    assert rows["ae"]["against"]["second"].startswith("control ")
    assert rows["brightness"]["control"] and "pixel_ap" in rows["brightness"]["figures"]
    chosen = chosen_cells(bench, hospital.settings)
    assert rows["ae"]["score"] == chosen["ae"].score.name
    assert (folder.path / "develop_auroc.png").stat().st_size > 1000


def test_a_crash_is_noted_in_the_cells_that_it_left_undone(hospital: Any, bench: Benchmark) -> None:
    note_crash(bench, "broken", 0, -9, hospital.settings)
    note_crash(bench, "small", 0, -9, hospital.settings)
    results = {cell.key: read_result(bench, cell, hospital.settings) or {} for cell in bench.cells()}
    assert "code -9" in results["broken.own.0"]["reason"]
    assert results["small.own.0"]["state"] == "done"


def test_holm_by_hand() -> None:
    def row(name: str, p: float) -> LeaderRow:
        numbers = dict.fromkeys(("auroc_first", "auroc_second", "difference", "standard_error", "low", "high"), 0.0)
        figures = {"first": name, "second": "c", "test": "t", "units": 9, "patients": 9, **numbers}
        return LeaderRow.model_validate({"name": name, "against": {**figures, "confidence": 0.95, "p_value": p}})

    rows = corrected([row("a", 0.03), row("b", 0.01), row("c", 0.02), LeaderRow(name="d")])
    # sorted .01 .02 .03: 3 x .01 = .03, 2 x .02 = .04, 1 x .03 = .03, made monotone to .04
    assert [r.holm_p for r in rows] == [pytest.approx(0.04), pytest.approx(0.03), pytest.approx(0.04), None]


def test_compare_names_its_tests_and_refuses_other_units(hospital: Any, bench: Benchmark) -> None:
    done = [read_result(bench, cell, hospital.settings) or {} for cell in bench.cells()]
    own, small = (RunFolder(path=RunFolder.open(RunRef(**r["run"])).path).run_id for r in (done[0], done[4]))
    comparison = compare_runs(own, small, hospital.settings, margin=0.3, alpha=0.05)
    assert [c.test for c in comparison.comparisons] == [
        "Obuchowski 1997 (units clustered by patient)",
        "paired patient bootstrap",
    ]
    text = comparison.to_text()
    assert "margin of 0.3 (one-sided alpha 0.05" in text and f"{comparison.comparisons[0].patients} patients" in text
    assert "central slices" in compare_runs(own, small, hospital.settings, part="central").to_text()
    with pytest.raises(ConfigError, match=own):
        compare_runs(own, own, hospital.settings)
    file = RunFolder.find(hospital.settings, small).path / "evaluation" / "develop" / "scores.csv"
    text = file.read_text()
    try:
        file.write_text("\n".join(text.splitlines()[:-3]) + "\n")
        with pytest.raises(ConfigError, match=r"\b3\b.*\b0\b"):
            compare_runs(own, small, hospital.settings)
    finally:
        file.write_text(text)
