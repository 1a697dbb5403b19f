"""A slice detector whose maps are averaged over adjacent slices, from training to the list, and from files."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import Settings, load_config
from pipeline.data.catalogue import Catalogue
from pipeline.detection.filters import across_slices
from pipeline.detection.load import load_detector
from pipeline.errors import ConfigError
from pipeline.stages.calibrate import calibrate
from pipeline.stages.config import RunConfig
from pipeline.stages.evaluate import evaluate
from pipeline.stages.grid import grid
from pipeline.stages.run_folder import RunFolder
from pipeline.stages.score import score
from pipeline.stages.selecting import choose, dataset
from pipeline.stages.train import train

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
    return calibrate(train(config, settings), settings), settings, config


def test_scores_are_those_of_averaged_maps_whatever_was_asked_for(judged: Any) -> None:
    report, settings, config = judged
    detector = load_detector(RunFolder.behind(report.run).detector, sha256=report.run.sha256)
    with Catalogue.open(settings) as catalogue:
        develop = choose(catalogue, config, settings, sets=("develop",))
    refs = [ref for ref in develop.slices if ref.series_id == develop.slices[0].series_id]
    some = {ref.slice_id for ref in refs[3:9]}
    data = dataset(develop, config, settings, cache="none")
    alone = detector.under(config.model_copy(deep=True).detection.model_copy(
        update={"residual": config.detection.residual.model_copy(update={"adjacent": 0.0})}
    ))  # fmt: skip
    found = {r.id: r for r in detector.score_slices(data)}
    maps = {r.id: r for r in alone.score_slices(data)}
    stack = torch.stack([torch.from_numpy(maps[ref.slice_id].values) for ref in refs])[:, None]
    expected = across_slices(stack, 0.8)[:, 0]
    for place, ref in enumerate(refs):
        inside = torch.from_numpy(found[ref.slice_id].body)
        torch.testing.assert_close(torch.from_numpy(found[ref.slice_id].values)[inside], expected[place][inside])
    # Chosen alone, slices are still averaged with the neighbours that were not chosen.
    few = dataset(type(develop)(tuple(r for r in refs if r.slice_id in some), (), develop.members), config, settings)
    assert {r.id: r.score for r in detector.score_slices(few)} == {name: found[name].score for name in some}


def test_it_goes_through_the_night_and_files_score_the_same(judged: Any, hospital: Any) -> None:
    report, settings, _ = judged
    evaluation = evaluate(report.run, settings)
    assert any(table.level == "pixel level" for table in evaluation.tables)
    scored = score(report.run, settings)
    assert scored.studies > 0
    with Catalogue.open(settings) as catalogue:
        listed = sorted(row.score for row in catalogue.findings(scored.run_id))
    detector = load_detector(RunFolder.behind(report.run).detector, sha256=report.run.sha256)
    folders: dict[Path, list[Path]] = {}
    for file in sorted(hospital.inbox.rglob("*.dcm")):
        folders.setdefault(file.parent, []).append(file)
    from_files = sorted(detector.score_files(files).score for files in folders.values())
    assert all(any(math.isclose(a, b, rel_tol=1e-6) for b in from_files) for a in listed)


def test_the_grid_refuses_what_it_cannot_judge(judged: Any) -> None:
    report, settings, _ = judged
    with pytest.raises(ConfigError, match="slices one by one"):
        grid(report.run, settings)
