"""A benchmark whose grid chooses to average over adjacent slices, for a method and for the members of an ensemble."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.detection.config import DetectionConfig
from pipeline.detection.score_grid import GridConfig
from pipeline.detection.stored_detector import load_detector
from pipeline.stages.benchmark import run as stage
from pipeline.stages.benchmark.config import Benchmark
from pipeline.stages.benchmark.run import prepare, read_finished, read_result, run_group
from pipeline.stages.choose.grid_search import GridResult, search_grid
from pipeline.stages.run.run_folder import RunFolder
from pipeline.types import RunRef

CHOOSING = """
name: choosing
base: {{file: {run_file}, set: ["detection.residual.adjacent={own}"]}}
criterion: auroc
methods:
  - {{name: small, method: {{name: ae, widths: [8, 8], hidden: 16}}, training: {{images: 64}}}}
  - {{name: other, method: {{name: ae, widths: [8, 8], hidden: 8}}, training: {{images: 64}}}}
  - {{name: both, members: [small, other]}}
scores:
  - {{name: fixed}}
  - {{name: grid, grid: true}}
"""
FEW = GridConfig(kinds=("l1",), medians=(1,), erosions=(0,), maps=("mean",), adjacents=(0.0, 1.0), transforms=("none",))


def choosing(hospital: Any, folder: Path, own: float) -> Benchmark:
    (folder / "choosing.yaml").write_text(CHOOSING.format(run_file=hospital.run_file, own=own))
    return Benchmark.read(folder / "choosing.yaml")


@pytest.mark.parametrize(
    ("own", "score", "chosen", "read"),
    [
        (0.0, "grid", (0.0, 1.0), 1.0),  # one member reads whole series, so the ensemble does
        (0.5, "grid", (0.0, 0.0), 0.0),
        (0.5, "grid", (0.5, 1.0), 1.0),
        (0.5, "fixed", (0.0, 0.0), 0.5),  # the file's value is used, and `assemble` refuses members that do not fit
    ],
)
def test_an_ensemble_of_grid_cells_reads_as_its_members_do(
    hospital: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: float, score: str, chosen: Any, read: float
) -> None:
    def stored_result(benchmark: Benchmark, cell: Any, settings: Any) -> dict[str, Any]:
        weight = chosen[("small", "other").index(cell.method.name)]
        detection = DetectionConfig.model_validate({"residual": {"adjacent": weight}})
        run = {"path": str(tmp_path / cell.method.name), "sha256": "0" * 64}
        return {"state": "done", "run": run, "detection": detection.model_dump(mode="json")}

    monkeypatch.setattr(stage, "read_result", stored_result)
    for name in ("small", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    benchmark = choosing(hospital, tmp_path, own)
    cell = next(c for c in benchmark.cells() if (c.method.name, c.score.name) == ("both", score))
    config = stage._config(benchmark, cell, hospital.settings)
    assert (config.detection.residual.adjacent, config.whole) == (read, read > 0)
    assert config.detection.residual.median == 3  # the rest is the base's
    assert [member.run for member in config.method.members] == ["small", "other"]


@pytest.mark.slow  # trains, calibrates and measures a run
@pytest.mark.parametrize(("own", "weight"), [(0.0, 1.0), (0.5, 0.0)])
def test_a_cell_is_finished_whatever_weight_the_grid_chose(
    hospital: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: float, weight: float
) -> None:
    tried: list[GridResult] = []

    def choose(run: RunRef, settings: Any, criterion: Any) -> GridResult:
        searched = search_grid(run, settings, FEW, criterion=criterion)
        row = searched.table[searched.table["adjacent"] == weight].iloc[0]
        residual = searched.best.residual.model_copy(update={"adjacent": weight, "median": 3, "erode": 1, "kind": "l1"})
        tried.append(
            replace(searched, best=searched.best.model_copy(update={"residual": residual}), best_row=row.to_dict())
        )
        return tried[-1]

    monkeypatch.setattr(stage, "search_grid", choose)
    benchmark = choosing(hospital, tmp_path, own)
    prepare(benchmark, hospital.settings)
    run_group(benchmark, "small", 0, hospital.settings)
    cell = next(c for c in benchmark.cells() if (c.method.name, c.score.name) == ("small", "grid"))
    result = read_result(benchmark, cell, hospital.settings)
    assert result and result["state"] == "done", result
    assert result["images_per_second"] > 0 and result["passes"] == 1
    assert set(tried[0].table["adjacent"]) == {own, 0.0, 1.0}
    assert read_finished(benchmark, cell, hospital.settings) == result
    with monkeypatch.context() as wider:  # a grid that tries something else is another question
        wider.setattr(stage, "GridConfig", lambda: FEW)
        assert read_finished(benchmark, cell, hospital.settings) is None
        fixed = next(c for c in benchmark.cells() if (c.method.name, c.score.name) == ("small", "fixed"))
        assert read_finished(benchmark, fixed, hospital.settings) is not None
    folder = RunFolder.open(RunRef(**result["run"]))
    assert load_detector(folder.detector).config.residual.adjacent == weight
