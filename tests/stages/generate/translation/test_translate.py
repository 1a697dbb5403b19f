"""Task `translate`: pairs across two routes, unpaired patients, answers beside the truth, and bad input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pipeline.config import Settings
from pipeline.data.ingest.ingest import ingest
from pipeline.data.labels.labels import import_labels
from pipeline.dicom.phantom import write_labels, write_pairs
from pipeline.errors import ConfigError, EmptySelection
from pipeline.nn.rng import Rng
from pipeline.stages.detect.calibrate import calibrate
from pipeline.stages.detect.train import train
from pipeline.stages.generate.run_task import run_task
from pipeline.stages.generate.task_config import load_task
from pipeline.stages.generate.task_report import TaskReport
from pipeline.stages.generate.translation.translation_answers import plain_translations
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.towards import pair_rows, unpaired_rows
from pipeline.types import Batch, SliceRef

NORMALISER = {"kind": "mr_percentile", "image_size": 32}
SPLITS = {
    "drawn_from": "pixels",  # not from the pseudonyms, which are others in every workspace
    "normals": {"train": 0.4, "validate": 0.1, "calibrate": 0.25, "develop": 0.25},
    "others": {"develop": 1.0},
}
CYCLE = {"name": "cycle_gan", "widths": [8, 8, 8, 16, 16, 8], "discriminator_widths": 8, "discriminator_layers": 1}
RUN: dict[str, Any] = {
    "name": "tiny",
    "data": {"route": "phantom-scanner-b", "normaliser": NORMALISER, "splits": SPLITS},
    "towards": {"route": "phantom-scanner-a", "normaliser": NORMALISER},
    "method": CYCLE,
    "training": {"images": 32, "batch_size": 8, "validate_every_images": 32},
}
DETECTOR: dict[str, Any] = {
    "name": "detector",
    "data": {"route": "phantom-scanner-a", "normaliser": NORMALISER, "splits": SPLITS},
    "method": {"name": "dae", "widths": [8, 8, 8, 16, 16, 8]},
    "training": {"images": 64, "batch_size": 16, "validate_every_images": 64},
    "detection": {"flagging": {"alpha": 0.2}},
    "evaluation": {"resamples": 100},
}
UNET = {"method": {"name": "regression_unet", "widths": [8, 8, 8, 16, 16, 8], "lr": 0.003}, "images": 64}
DRAWS = {
    "method": {
        "name": "conditional_ddpm",
        "denoiser": {"widths": [8, 16], "attention": [False, False]},
        "steps": 2,
        "draws": 2,
    },
    "images": 16,
}


def refs(*places: tuple[str, float], side: str = "x") -> list[SliceRef]:
    return [
        SliceRef(f"{side}{number}", 0, f"{side}-{patient}", patient, patient, f"{side}{number}", {}, position)
        for number, (patient, position) in enumerate(places)
    ]


ROUTES = {"source": "one", "target": "other"}


def test_slices_go_together_by_patient_and_position_where_that_is_unambiguous() -> None:
    source = refs(("p", 0.0), ("p", 1.0), ("q", 0.0), ("r", 0.5), ("r", 0.5))
    target = refs(("q", 0.0), ("p", 1.0), ("r", 0.5), ("s", 0.0), side="y")
    assert sorted(pair_rows(source, target, ROUTES)) == [[1, 1], [2, 0]]
    with pytest.raises(EmptySelection, match="counterpart in other"):
        pair_rows(source[3:], target, ROUTES)


def test_without_pairs_no_patient_is_seen_in_both_domains() -> None:
    names = [f"p{number}" for number in range(40)]
    source = refs(*((name, 0.0) for name in [*names, "only here"]))
    target = refs(*((name, 0.0) for name in [*names, "only there"]), side="y")
    rows = unpaired_rows(source, target, ROUTES)
    seen = [{side[row[place]].patient_id for row in rows} for place, side in ((0, source), (1, target))]
    assert not seen[0] & seen[1] and seen[0] | seen[1] == {*names, "only here", "only there"}
    assert len(seen[0]) == len(seen[1]) == 21
    with pytest.raises(EmptySelection, match="other 0 of other patients"):
        unpaired_rows(source[:1], target[:1], ROUTES)


def test_one_curve_for_all_images_undoes_a_curve_of_grey_values() -> None:
    source = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    answers = plain_translations(source, source.tanh())
    batch = Batch(source[:2], source[:2] > -9, ("a", "b"))
    assert torch.equal(answers["nothing"](batch, Rng([0, 1])), batch.images)
    for name in ("histogram matching", "histogram matching, one curve"):
        error = (answers[name](batch, Rng([0, 1])) - batch.images.tanh()).abs()
        assert error.mean() < 0.03, name
    assert error.max() < 1e-3, "the curve is exact where it was learned"


@pytest.fixture(scope="module")
def two_scanners(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A workspace of patients with scans of both scanners."""
    folder = tmp_path_factory.mktemp("pairs")
    settings = Settings.load(folder / "workspace")
    written = write_pairs(folder / "inbox", 44, "scanners", 0.3, 3, size=32, slices=2)
    ingest([folder / "inbox"], settings)
    import_labels(write_labels(written.studies, folder), settings)
    return settings


def task_of(folder: Path, run: dict[str, Any], beside: Sequence[dict[str, Any]] = (), **more: Any) -> Any:
    file = folder / "task.yaml"
    values = {"task": "translate", "name": "tiny", "run": run, "count": 12, "beside": list(beside), **more}
    file.write_text(yaml.safe_dump(values))
    return load_task(file)


@pytest.fixture(scope="module")
def report(two_scanners: Settings, tmp_path_factory: pytest.TempPathFactory) -> TaskReport:
    detector = calibrate(train(RunConfig.model_validate(DETECTOR), two_scanners), two_scanners).run
    judge = {"detector": Path(detector.path).name, "patients": 12}
    task = task_of(tmp_path_factory.mktemp("task"), RUN, [UNET, DRAWS], judge=judge)
    return run_task(task, two_scanners)


def test_translations_are_judged_beside_the_truth_and_by_the_other_scanners_detector(report: TaskReport) -> None:
    names = [
        "nothing",
        "histogram matching",
        "histogram matching, one curve",
        "regression_unet",
        "conditional_ddpm, one draw",
        "conditional_ddpm, mean of 2",
        "cycle_gan",
    ]
    assert [row["name"] for row in report.rows if "psnr" in row] == names
    seen = {row["name"]: row for row in report.rows if "auroc" in row}
    assert list(seen) == ["original", *names] and all(row["pixel_ap"] is not None for row in seen.values())
    assert seen["nothing"]["auroc_gain"] is seen["original"]["auroc_gain"] is None
    gains = [seen[name]["auroc_gain"]["value"] for name in names[1:]]
    auroc = [seen[name]["auroc"]["value"] - seen["nothing"]["auroc"]["value"] for name in names[1:]]
    assert gains == pytest.approx(auroc)
    assert report.folder.sheet.is_file() and all("kid" in row for row in report.rows if "psnr" in row)


def test_a_regression_that_learned_from_pairs_comes_nearer_to_the_truth(report: TaskReport) -> None:
    psnr = {row["name"]: row["psnr"]["value"] for row in report.rows if "psnr" in row}
    assert psnr["regression_unet"] > psnr["nothing"]


def test_the_models_domains_are_the_routes(report: TaskReport) -> None:
    method = report.folder.read("config.json")["run"]["method"]
    assert method["domains"] == ["phantom-scanner-b", "phantom-scanner-a"]


def changed(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one value changed."""
    head, _, rest = path.partition(".")
    return {**values, head: changed(values[head], rest, value) if rest else value}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("towards.route", "phantom-scanner-b", "cannot be translated into itself"),
        ("towards.normaliser.image_size", 64, "32 pixels cannot be translated into images of 64"),
        ("towards", None, "run.towards"),
        ("detection", {}, "without a detector"),
        ("towards.route", "phantom-scanner-c", "phantom-scanner-c"),
        ("method", {"name": "vae", "widths": [8, 16]}, "vae gives no image of another domain"),
        ("method.domains", ["a", "a"], "itself"),
        ("data.normaliser.image_size", 48, "48"),
    ],
)
def test_what_cannot_be_translated_is_refused_before_training(
    two_scanners: Settings, tmp_path: Path, path: str, value: Any, message: str
) -> None:
    before = sorted(two_scanners.runs.glob("*"))
    with pytest.raises(ConfigError, match=message):
        run_task(task_of(tmp_path, changed(RUN, path, value)), two_scanners)
    assert sorted(two_scanners.runs.glob("*")) == before


def test_a_detector_of_the_wrong_scanner_and_a_model_without_second_domain_are_refused(
    two_scanners: Settings, report: TaskReport, tmp_path: Path
) -> None:
    detector = report.folder.read("config.json")["judge"]["detector"]
    back = {
        **RUN,
        "data": {**RUN["data"], "route": "phantom-scanner-a"},
        "towards": {**RUN["towards"], "route": "phantom-scanner-b"},
    }
    with pytest.raises(ConfigError, match="another data.route"):
        run_task(task_of(tmp_path, back, judge={"detector": detector}), two_scanners)
    file = tmp_path / "trained.yaml"
    file.write_text(yaml.safe_dump({"task": "translate", "name": "tiny", "trained": {"run": detector}}))
    with pytest.raises(ConfigError, match="learned no second domain"):
        run_task(load_task(file), two_scanners)


def test_a_modality_that_the_same_patients_do_not_have_is_said(two_scanners: Settings, tmp_path: Path) -> None:
    run = changed(RUN, "towards.route", "phantom-ct-head")
    with pytest.raises(EmptySelection, match="phantom-ct-head"):
        run_task(task_of(tmp_path, run), two_scanners)
