"""A hospital whose detector reads volumes: trained, calibrated, scored, evaluated, served and shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from pipeline.cli import group
from pipeline.config import load_config
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import FindingRow
from pipeline.data.sets.selection import Selection, select_slices
from pipeline.detection.score_files import score_files
from pipeline.detection.score_grid import GridConfig
from pipeline.detection.scorer import Scorer
from pipeline.detection.stored_detector import load_detector
from pipeline.errors import EmptySelection
from pipeline.review.slice_maps import MapMaker
from pipeline.review.stacks import StudyStacks
from pipeline.stages.choose.grid_search import search_grid
from pipeline.stages.detect.calibrate import calibrate
from pipeline.stages.detect.evaluate import evaluate
from pipeline.stages.detect.score import score
from pipeline.stages.detect.train import train
from pipeline.stages.run.load_slices import choose, dataset, lessons
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder
from pipeline.stages.run.score_slices import scored_slices
from pipeline.types import SliceResult


@pytest.fixture(scope="module")
def detector(hospital: Any) -> Scorer:
    """The champion, read from its folder."""
    return load_detector(Path(hospital.report.run.path) / "detector", sha256=hospital.report.run.sha256)


@pytest.fixture(scope="module")
def scored(hospital: Any) -> list[FindingRow]:
    """The findings of one scoring run."""
    report = score(hospital.report.run, hospital.settings)
    with Catalogue.open(hospital.settings) as catalogue:
        return catalogue.list_findings(report.run_id)


def of_study(hospital: Any, detector: Scorer, study_id: str) -> list[SliceResult]:
    config = RunFolder.open(hospital.report.run).read_config()
    with Catalogue.open(hospital.settings) as catalogue:
        chosen = choose(catalogue, config, hospital.settings, study_ids=[study_id])
    return list(scored_slices(detector, dataset(chosen, config, hospital.settings, "none")))


def test_studies_are_calibrated_on(hospital: Any, detector: Scorer) -> None:
    config = RunFolder.open(hospital.report.run).read_config()
    with Catalogue.open(hospital.settings) as catalogue:
        chosen = choose(catalogue, config, hospital.settings, sets=["calibrate"])
    assert hospital.report.n == len({ref.study_id for ref in chosen.slices}) > 3
    assert hospital.report.guarantee == "conformal"
    assert detector.volumes == config.data.volumes and detector.method.spatial_dims == 3
    assert detector.calibration.pixels.patients == hospital.report.patients


def test_cubes_are_learnt_from_and_slices_are_counted(hospital: Any) -> None:
    folder = RunFolder.open(hospital.report.run)
    config = folder.read_config()
    with Catalogue.open(hospital.settings) as catalogue:
        cubes = lessons(choose(catalogue, config, hospital.settings, sets=["train"]), config, hospital.settings)
    data = folder.read("data.json")["train"]
    assert data["slices"] == 16 * data["series"]
    assert len(cubes) == 6 * data["series"] and cubes[0]["image"].shape == (1, 16, 16, 16)


def test_every_slice_of_a_study_is_evidence(hospital: Any, scored: list[FindingRow]) -> None:
    assert len(scored) == 3
    for row in scored:
        assert len({(item["instance_id"], item["frame"]) for item in row.evidence}) == len(row.evidence) > 8
        assert 0 < row.p_value <= 1 and row.n_calibration == hospital.report.n
        top = sorted((item["score"] for item in row.evidence), reverse=True)[:3]
        assert row.score == pytest.approx(np.mean(top))


def test_too_short_a_series_is_listed_with_its_code(hospital: Any, scored: list[FindingRow]) -> None:
    with Catalogue.open(hospital.settings) as catalogue:
        left = catalogue.list_not_scored(scored[0].run_id)
    assert [(row.code, "4 slices" in row.sentence) for row in left] == [("too-few-slices", True)]


def test_kept_heatmaps_lie_on_native_slices(hospital: Any, detector: Scorer, scored: list[FindingRow]) -> None:
    flagged = [row for row in scored if row.flagged]
    assert len(flagged) == 2
    for row in flagged:
        items = {item.id.replace("/", "."): item for item in of_study(hospital, detector, row.study_id)}
        with np.load(Path(hospital.report.run.path) / "heatmaps" / f"{row.study_id}.npz") as heatmaps:
            assert len(heatmaps.files) == 3
            for name in heatmaps.files:
                expected = detector.native(items[name], reconstruction=False).values
                assert heatmaps[name].shape == (32, 32)
                np.testing.assert_allclose(heatmaps[name], expected, rtol=2e-3, atol=1e-3)


def test_files_score_as_the_night_did(hospital: Any, detector: Scorer, scored: list[FindingRow]) -> None:
    folders = sorted(path for path in hospital.inbox.glob("mr*"))
    results = [score_files(detector, sorted(folder.glob("*.dcm"))) for folder in folders]
    assert sorted(r.score for r in results) == pytest.approx(sorted(row.score for row in scored), rel=1e-5)
    assert sorted(r.p_value for r in results) == pytest.approx(sorted(row.p_value for row in scored))
    assert results[0].heatmap.shape == (16, 32, 32) == results[0].reconstruction.shape


def test_evaluation_measures_studies_and_pixels(hospital: Any) -> None:
    report = evaluate(hospital.report.run, hospital.settings)
    image, pixels = report.tables[0], report.tables[-1]
    assert image.level == "study level" and pixels.level == "pixel level"
    assert pixels.counts["slices"] == 16 * pixels.counts["patients"] and pixels.counts["lesion_pixels"] > 100
    assert np.isfinite(pixels.row("ae").metrics["AP"].value)
    assert np.isfinite(image.row("ae").metrics["AUROC"].value)
    assert (Path(hospital.report.run.path) / "evaluation" / "develop" / "panels.png").exists()
    tried = GridConfig(kinds=("l1", "ssim"), medians=(1, 3), erosions=(0,), fractions=(0.05,))
    own = search_grid(hospital.report.run, hospital.settings, tried, criterion="auroc").table.iloc[0]
    assert own["auroc"] == pytest.approx(image.row("ae").metrics["AUROC"].value, abs=1e-12)
    assert own["pixel_ap"] == pytest.approx(pixels.row("ae").metrics["AP"].value, abs=1e-9)


def test_a_reader_is_shown_the_maps_that_were_scored(
    hospital: Any, detector: Scorer, scored: list[FindingRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = scored[0]
    with Catalogue.open(hospital.settings) as catalogue:
        maker = MapMaker(catalogue, hospital.settings)
        (stack,) = StudyStacks(catalogue).read(finding.study_id).stacks
        seventh = maker.ask(finding, stack, 7).result()
        monkeypatch.setattr(MapMaker, "_results", lambda *_: pytest.fail("computed again"))
        next_one = maker.ask(finding, stack, 8).result()  # the whole stack was kept
        maker.close()
    for index, maps in ((7, seventh), (8, next_one)):
        item = next(i for i in of_study(hospital, detector, finding.study_id) if i.id == stack.refs[index].slice_id)
        expected = detector.native(item)
        np.testing.assert_allclose(maps.heat * maps.heat_step + maps.heat_first, expected.values, atol=maps.heat_step)
        image = maps.image * maps.image_step + maps.image_first  # outside the body it is the scan's own
        body = expected.body
        np.testing.assert_allclose(image[body], expected.reconstruction[body], atol=maps.image_step)


def test_the_registered_models_example_is_a_volume(hospital: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow.set_tracking_uri(hospital.settings.mlflow)
    model = mlflow.pyfunc.load_model("models:/nightread-phantom-mr@champion")
    answer = model.predict(model.input_example)
    assert len(model.input_example) == 8 and len(answer) == 1
    assert answer["error"].tolist() == [""] and np.isfinite(answer["score"][0])
    alone = model.predict(pd.DataFrame({"dicom": model.input_example["dicom"][:1]}))
    assert "too-few-slices" in alone["error"][0]


def test_the_commands_read_volumes(hospital: Any, scored: list[FindingRow]) -> None:
    def nightread(*arguments: str) -> Any:
        done = CliRunner().invoke(group, ["--workspace", str(hospital.settings.workspace), *arguments])
        assert done.exit_code == 0, done.output
        return done.stdout

    assert json.loads(nightread("train", str(hospital.run_file), "--json"))["n"] == hospital.report.n
    assert json.loads(nightread("score", "--again", "--json"))[0]["studies"] == 3
    assert len(json.loads(nightread("flagged", "--json"))) == 2


def test_an_ensemble_of_volumes_is_assembled_from_the_disk_cache(hospital: Any) -> None:
    second = ["method={name: vae, widths: [8, 16], latent: 4}", "training.images=80", "data.cache=disk"]
    vae = calibrate(
        train(load_config(hospital.run_file, RunConfig, second), hospital.settings), hospital.settings, False
    )
    members = [{"run": Path(report.run.path).name} for report in (hospital.report, vae)]
    config = load_config(hospital.run_file, RunConfig)
    config = RunConfig.model_validate(
        config.model_dump(mode="json") | {"method": {"name": "ensemble", "members": members}, "training": {}}
    )
    report = calibrate(train(config, hospital.settings), hospital.settings, False)
    assert report.n == hospital.report.n
    both = load_detector(Path(report.run.path) / "detector")
    assert both.volumes == config.data.volumes and len(both.methods) == 2
    result = score_files(both, sorted(next(hospital.inbox.glob("mr*")).glob("*.dcm")))
    assert np.isfinite(result.score) and result.heatmap.shape == (16, 32, 32)


def test_where_nothing_can_be_learnt_from_the_reasons_are_reported(hospital: Any) -> None:
    config = load_config(hospital.run_file, RunConfig, ["data.volumes.least_slices=17"])
    with pytest.raises(EmptySelection, match=r"\d+ too-few-slices"):
        train(config, hospital.settings)


def test_a_partly_normal_series_teaches_nothing(hospital: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunFolder.open(hospital.report.run).read_config()

    def one_slice_less(*arguments: Any, **choices: Any) -> Selection:
        selection = select_slices(*arguments, **choices)
        return replace(selection, slices=selection.slices[1:])

    with Catalogue.open(hospital.settings) as catalogue:
        chosen = choose(catalogue, config, hospital.settings, sets=["train"])
        labelled = choose(catalogue, config, hospital.settings, sets=["develop"])
        monkeypatch.setattr("pipeline.stages.run.load_slices.select_slices", one_slice_less)
        partly = choose(catalogue, config, hospital.settings, sets=["train"])
        assert len(choose(catalogue, config, hospital.settings, sets=["develop"]).slices) == len(labelled.slices) - 1
    first = chosen.slices[0].series_id
    assert first not in {ref.series_id for ref in partly.slices} and first not in partly.members
    assert [(s.series_id, s.code) for s in partly.not_scored if s.code == "partly-normal"] == [(first, "partly-normal")]
    assert len(partly.slices) == len(chosen.slices) - 16
