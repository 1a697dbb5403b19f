"""The score grid: the run's own cell is what evaluation measures, test is never read, shuffled labels give .5."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.dataset import SliceDataset
from pipeline.data.sets.selection import Selection
from pipeline.data.store.pixel_store import PixelStore
from pipeline.detection.config import DetectionConfig
from pipeline.detection.detector import Detector
from pipeline.detection.score_grid import GridConfig, aggregates, map_cells
from pipeline.errors import ConfigError
from pipeline.evaluation.report import EvaluationReport
from pipeline.stages.choose.compare_runs import read_stored_scores
from pipeline.stages.choose.grid_cells import auroc
from pipeline.stages.choose.grid_search import GridResult, guard, search_grid
from pipeline.stages.run.load_slices import choose, dataset
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder
from pipeline.types import RunRef, SetName

TRIED = GridConfig(kinds=("l1", "ssim"), sigma_fractions=(3 / 64,), medians=(1,), erosions=(0,), fractions=(0.05,))


@pytest.fixture(scope="module")
def result(hospital: Any, evaluated_run: RunRef) -> GridResult:
    return search_grid(evaluated_run, hospital.settings, TRIED, criterion="auroc")


def test_the_runs_own_cell_is_what_its_evaluation_measured(
    hospital: Any, evaluated_run: RunRef, result: GridResult
) -> None:
    folder = RunFolder.open(evaluated_run)
    report = EvaluationReport.model_validate(folder.read("evaluation/develop/report.json"))
    own, (image, central, pixels) = result.table.iloc[0], report.tables
    assert (own["kind"], own["median"], own["erode"], own["fraction"]) == ("l1", 3, 1, 0.03)
    assert own["auroc"] == pytest.approx(image.row("ae").metrics["AUROC"].value, abs=1e-12)
    assert own["auroc_central"] == pytest.approx(central.row("ae").metrics["AUROC"].value, abs=1e-12)
    assert own["pixel_ap"] == pytest.approx(pixels.row("ae").metrics["AP"].value, abs=1e-12)
    assert own["oracle_dice"] == pytest.approx(pixels.row("ae").metrics["best Dice (oracle)"].value, abs=1e-12)


def test_every_cell_is_there_once_and_the_best_is_the_best(result: GridResult) -> None:
    # 3 maps (own, l1, ssim) x 2 erosions x 2 weights of adjacent slices x 4 aggregates (own, mean, max_smoothed, 5 %)
    # x 2 transforms
    assert len(result.table) == 3 * 2 * 2 * 4 * 2
    assert set(result.table["adjacent"]) == {0, 1}
    settings = result.table.drop(columns=["auroc", "auroc_central", "pixel_ap", "oracle_dice"])
    assert not settings.duplicated().any()
    assert result.best_row["auroc"] == result.table["auroc"].max()
    again = DetectionConfig.model_validate(yaml.safe_load(result.snippet())["detection"])
    assert again.residual == result.best.residual
    assert again.aggregate == result.best.aggregate
    assert again.transform == result.best.transform


def test_answers_are_kept_and_no_second_forward_pass_is_made(
    hospital: Any, evaluated_run: RunRef, result: GridResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Detector, batch: Any) -> Any:
        raise AssertionError("a forward pass")

    monkeypatch.setattr(Detector, "answer", refuse)
    repeated = search_grid(evaluated_run, hospital.settings, TRIED, criterion="auroc")
    pd.testing.assert_frame_equal(repeated.table, result.table)


def test_only_pixels_of_validate_and_develop_are_read(
    hospital: Any, trained_run: RunRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: Settings = hospital.settings
    config = RunFolder.open(trained_run).read_config()
    hidden: tuple[SetName, ...] = ("train", "calibrate", "test")
    with Catalogue.open(settings) as catalogue:
        forbidden = {ref.pixel_key for ref in choose(catalogue, config, settings, sets=hidden).slices}
        readable = {ref.pixel_key for ref in choose(catalogue, config, settings, sets=("develop",)).slices}
    assert len(forbidden) > 30
    read: set[str] = set()
    get = PixelStore.get

    def watched(self: PixelStore, key: str, *arguments: Any) -> Any:
        read.add(key)
        return get(self, key, *arguments)

    monkeypatch.setattr(PixelStore, "get", watched)
    monkeypatch.setattr("pipeline.stages.run.open_run.dataset", uncached)
    few = TRIED.model_copy(update={"kinds": ("l1",), "maps": ("mean",), "transforms": ("none",)})
    search_grid(trained_run, settings, few, criterion="auroc")
    assert readable <= read
    assert not read & forbidden


def uncached(
    selection: Selection, config: RunConfig, settings: Settings, cache: str, whole: bool | None
) -> SliceDataset:
    """A data set whose every pixel comes from the store."""
    return dataset(selection, config, settings, cache="ram", whole=whole)


def test_the_guard_refuses_test_slices(hospital: Any, trained_run: RunRef) -> None:
    config = RunFolder.open(trained_run).read_config()
    with Catalogue.open(hospital.settings) as catalogue:
        develop = choose(catalogue, config, hospital.settings, sets=("develop",)).slices
    guard(develop)
    with pytest.raises(ConfigError, match=r"\btest\b"):
        guard([*develop, replace(develop[0], set_name="test")])


def test_shuffled_labels_give_a_half(hospital: Any, evaluated_run: RunRef) -> None:
    frame = read_stored_scores(RunFolder.open(evaluated_run), "develop")
    rng = np.random.default_rng(0)
    scores, truth = frame["score"].to_numpy(), (frame["label"] == "abnormal").to_numpy()
    drawn = [auroc(scores, rng.permutation(truth)) for _ in range(400)]
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.02)


def test_a_grid_of_a_mappers_own_map_varies_its_cleaning_only() -> None:
    own = DetectionConfig()
    cells = map_cells(GridConfig(), own, reconstructs=False)
    assert [cell.residual.median for cell in cells] == [1, 5]
    assert len(map_cells(GridConfig(), own, reconstructs=True)) == 2 * (2 + 2 + 3)
    assert [one.map for one in aggregates(GridConfig(), own.aggregate)].count("mean") == 1


def test_the_written_file_says_how_the_cell_was_chosen(evaluated_run: RunRef, result: GridResult) -> None:
    folder = RunFolder.open(evaluated_run).path / "grid"
    assert (folder / "best.yaml").read_text().startswith("# best auroc on develop")
    assert len(pd.read_csv(folder / "grid.csv")) > 0


def test_low_passes_are_tried_on_reconstructions_only() -> None:
    own, tried = DetectionConfig(), GridConfig(kinds=("l1",), medians=(1,), low_passes=(0.0, 0.05))
    lows = [cell.residual.low_pass for cell in map_cells(tried, own, reconstructs=True) if cell.residual.kind == "l1"]
    assert lows == [0.0, 0.05]
    assert {cell.residual.low_pass for cell in map_cells(tried, own, reconstructs=False)} == {0.0}
