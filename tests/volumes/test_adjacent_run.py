"""A slice detector whose maps are averaged over adjacent slices, from training to the list, and from files."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pipeline.config import Settings, load_config
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.labels.labels import add_label
from pipeline.detection.filters import across_slices
from pipeline.detection.residual import ResidualConfig
from pipeline.detection.score_files import score_files
from pipeline.detection.score_grid import GridConfig
from pipeline.detection.stored_detector import load_detector
from pipeline.stages.choose.grid_search import search_grid
from pipeline.stages.detect.calibrate import calibrate
from pipeline.stages.detect.evaluate import evaluate
from pipeline.stages.detect.rescore import rescore
from pipeline.stages.detect.score import score
from pipeline.stages.detect.train import train
from pipeline.stages.run.load_slices import choose, dataset
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder

SLICES = [
    "name=adjacent",
    "data.volumes=null",
    "detection.residual.adjacent=0.8",
    "detection.batch_size=5",  # series of 16 slices are computed in parts
    "training.images=96",
]


@pytest.fixture(scope="module")
def judged(hospital: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Settings, RunConfig]:
    """The volumes' hospital again, read slice by slice."""
    settings = Settings(workspace=tmp_path_factory.mktemp("adjacent") / "workspace")
    shutil.copytree(hospital.settings.workspace, settings.workspace, ignore=shutil.ignore_patterns("runs", "mlflow"))
    config = load_config(hospital.run_file, RunConfig, SLICES)
    withdraw(config, settings)
    return calibrate(train(config, settings), settings), settings, config


def withdraw(config: RunConfig, settings: Settings) -> None:
    """Take the label off three slices of every other develop series: averaged with, and judged nowhere."""
    with Catalogue.open(settings) as catalogue:
        develop = choose(catalogue, config, settings, sets=("develop",))
        with catalogue.session() as session:
            for refs in list(develop.members.values())[::2]:
                for ref in refs[6:9]:
                    assert add_label(session, "instance", ref.instance_id, "unknown", source="second look")
        fewer = choose(catalogue, config, settings, sets=("develop",))
    assert len(fewer.slices) == len(develop.slices) - 3 * ((len(develop.members) + 1) // 2)


def test_scores_are_those_of_averaged_maps_whatever_was_requested(judged: Any) -> None:
    report, settings, config = judged
    detector = load_detector(RunFolder.open(report.run).detector, sha256=report.run.sha256)
    with Catalogue.open(settings) as catalogue:
        develop = choose(catalogue, config, settings, sets=("develop",))
    refs = list(develop.members[develop.slices[-1].series_id])
    data = dataset(replace(develop, slices=tuple(refs)), config, settings, cache="none")
    some = {ref.slice_id for ref in refs[3:9]}
    alone = detector.under(config.model_copy(deep=True).detection.model_copy(
        update={"residual": config.detection.residual.model_copy(update={"adjacent": 0.0})}
    ))  # fmt: skip
    results = {r.id: r for r in detector.score_slices(data)}
    maps = {r.id: r for r in alone.score_slices(data)}
    stack = torch.stack([torch.from_numpy(maps[ref.slice_id].values) for ref in refs])[:, None]
    expected = across_slices(stack, 0.8)[:, 0]
    for place, ref in enumerate(refs):
        inside = torch.from_numpy(results[ref.slice_id].body)
        torch.testing.assert_close(torch.from_numpy(results[ref.slice_id].values)[inside], expected[place][inside])
    # Chosen alone, slices are still averaged with the neighbours that were not chosen.
    few = dataset(type(develop)(tuple(r for r in refs if r.slice_id in some), (), develop.members), config, settings)
    assert {r.id: r.score for r in detector.score_slices(few)} == {name: results[name].score for name in some}


def test_it_goes_through_the_night_and_files_score_the_same(judged: Any, hospital: Any) -> None:
    report, settings, _ = judged
    evaluation = evaluate(report.run, settings)
    assert any(table.level == "pixel level" for table in evaluation.tables)
    scored = score(report.run, settings)
    assert scored.studies > 0
    with Catalogue.open(settings) as catalogue:
        listed = sorted(row.score for row in catalogue.list_findings(scored.run_id))
    detector = load_detector(RunFolder.open(report.run).detector, sha256=report.run.sha256)
    folders: dict[Path, list[Path]] = {}
    for file in sorted(hospital.inbox.rglob("*.dcm")):
        folders.setdefault(file.parent, []).append(file)
    from_files = sorted(score_files(detector, files).score for files in folders.values())
    assert all(any(math.isclose(a, b, rel_tol=1e-6) for b in from_files) for a in listed)


def test_the_grids_cells_are_what_evaluations_measure(judged: Any) -> None:
    """The run's own weight, none and another in one grid; as runs of their own they measure what their cells said."""
    report, settings, config = judged
    tried = GridConfig(kinds=("l1",), medians=(3,), erosions=(1,), maps=("mean",), adjacents=(0.0, 1.0))
    result = search_grid(report.run, settings, tried, criterion="auroc")
    assert set(result.table["adjacent"]) == {0.8, 0.0, 1.0}
    measured = evaluate(report.run, settings)
    own, (image, pixels) = result.table.iloc[0], (measured.tables[0], measured.tables[-1])
    assert own["adjacent"] == 0.8 and pixels.level == "pixel level"
    assert own["auroc"] == pytest.approx(image.row("ae").metrics["AUROC"].value, abs=1e-12)
    assert own["pixel_ap"] == pytest.approx(pixels.row("ae").metrics["AP"].value, abs=1e-6)
    assert own["oracle_dice"] == pytest.approx(pixels.row("ae").metrics["best Dice (oracle)"].value, abs=1e-6)
    for weight in (0.0, 1.0):
        cell = result.table.query(
            f"adjacent == {weight} and median == 3 and erode == 1 and map == 'mean' and transform == 'none'"
        ).iloc[0]
        residual = ResidualConfig(kind="l1", median=3, erode=1, adjacent=weight)
        aggregate = config.detection.aggregate.model_copy(update={"map": "mean"})
        other = rescore(
            report.run,
            config.detection.model_copy(update={"residual": residual, "aggregate": aggregate}),
            settings,
        )
        tables = evaluate(calibrate(other, settings, to_registry=False).run, settings).tables
        assert cell["auroc"] == pytest.approx(tables[0].row("ae").metrics["AUROC"].value, abs=1e-12)
        assert cell["pixel_ap"] == pytest.approx(tables[-1].row("ae").metrics["AP"].value, abs=1e-6)


def test_the_best_cell_states_its_weight_even_where_it_is_zero(judged: Any) -> None:
    """Laid over a run with 0.8, a snippet without the field would leave 0.8 there."""
    report, settings, _ = judged
    tried = GridConfig(kinds=("l1",), medians=(1,), erosions=(0,), maps=("mean",), adjacents=(0.0,))
    result = search_grid(report.run, settings, tried, criterion="auroc")
    bare = replace(result, best=result.best.model_copy(update={"residual": ResidualConfig(kind="l1")}))
    assert yaml.safe_load(bare.snippet())["detection"]["residual"]["adjacent"] == 0
