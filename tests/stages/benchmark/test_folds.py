"""A benchmark of folds through every stage: patients are held out once, figures are means, test stays shut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import load_config
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.ingest.ingest import ingest
from pipeline.data.labels.labels import add_label, import_labels
from pipeline.data.sets.selection import slices
from pipeline.dicom.phantom.folder import SYNTAXES, write_labels, write_phantoms
from pipeline.errors import CatalogueError, ConfigError
from pipeline.stages.benchmark.config import Benchmark
from pipeline.stages.benchmark.final_tables import finish
from pipeline.stages.benchmark.run import make_benchmark_folder, prepare, read_result, run_group
from pipeline.stages.choose.compare_runs import read_stored_scores
from pipeline.stages.detect.build_ensemble import assemble
from pipeline.stages.detect.calibrate import calibrate
from pipeline.stages.detect.evaluate import evaluate
from pipeline.stages.detect.train import train
from pipeline.stages.run.load_slices import choose
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking.registry import list_registered
from pipeline.types import RunRef

FOLDS = """
name: folded
base: {file: RUN, set: [evaluation.resamples=100]}
criterion: auroc
folds: 2
methods:
  - {name: small, method: {name: ae, widths: [8, 8], hidden: 16}, training: {images: 64}}
  - {name: other, method: {name: ae, widths: [8, 8], hidden: 8}, training: {images: 64}}
  - {name: both, members: [small, other]}
"""


@pytest.fixture(scope="module")
def file(hospital: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The benchmark's file."""
    path = tmp_path_factory.mktemp("folds") / "folded.yaml"
    path.write_text(FOLDS.replace("RUN", str(hospital.run_file)))
    return path


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("folds: 2", "folds: 1"), r"folds: .*\b2\b"),
        (("folds: 2", "folds: 2\nseeds: [0, 1]"), "`seeds`"),
        (("training: {images: 64}}", "training: {images: 64}, seeds: [3]}"), "`seeds`"),
        (("members: [small, other]", "members: [small], over_seeds: true"), r"\bover_seeds\b"),
        (("training: {images: 64}}", "data: {fold: {of: 2, held_out: 0}}}"), r"\bfold\b.*\bbase\b"),
    ],
)
def test_options_that_exclude_folds_are_refused(
    file: Path, tmp_path: Path, change: tuple[str, str], reason: str
) -> None:
    (tmp_path / "b.yaml").write_text(file.read_text().replace(*change, 1))
    with pytest.raises(ConfigError, match=reason):
        Benchmark.read(tmp_path / "b.yaml")


def test_cells_hold_out_one_fold_each_with_a_seed_of_its_own(file: Path) -> None:
    benchmark = Benchmark.read(file)
    assert benchmark.groups() == [(name, fold) for name in ("small", "other", "both") for fold in (0, 1)]
    for cell in benchmark.cells():
        config = benchmark.run_config(cell)
        assert config.data.fold is not None
        assert (config.data.fold.of, config.data.fold.held_out, config.training.seed) == (2, cell.seed, cell.seed)


def test_test_stays_shut(hospital: Any, file: Path) -> None:
    with pytest.raises(ConfigError, match="over 2 folds"):
        finish(Benchmark.read(file), hospital.settings, "c", open_test="a look")


def test_a_codec_that_is_trained_already_is_refused_under_a_fold() -> None:
    codec = {"run": "x", "sha256": "a" * 64}
    values = {
        "name": "n",
        "data": {"route": "phantom-mr", "normaliser": {"kind": "mr_percentile", "image_size": 32}},
        "method": {"name": "latent_diffusion", "codec": codec},
    }
    RunConfig.model_validate(values)
    values["data"]["fold"] = {"of": 2, "held_out": 0}  # type: ignore[index]
    with pytest.raises(ValueError, match=r"data\.fold"):
        RunConfig.model_validate(values)


@pytest.fixture(scope="module")
def bench(hospital: Any, file: Path) -> Benchmark:
    """The benchmark with every group computed in this process."""
    benchmark = Benchmark.read(file)
    for method, fold in prepare(benchmark, hospital.settings):
        run_group(benchmark, method, fold, hospital.settings)
    return benchmark


def run_of(bench: Benchmark, hospital: Any, key: str) -> RunRef:
    cell = next(cell for cell in bench.cells() if cell.key == key)
    result = read_result(bench, cell, hospital.settings) or {}
    assert result["state"] == "done", result
    return RunRef(**result["run"])


@pytest.mark.slow
def test_every_patient_is_judged_once_and_figures_are_means(hospital: Any, bench: Benchmark) -> None:
    finish(bench, hospital.settings, "nightread benchmark folded.yaml")
    folders = [RunFolder.open(run_of(bench, hospital, f"small.own.{fold}")) for fold in (0, 1)]
    frames = [read_stored_scores(folder, "develop") for folder in folders]
    people = [set(frame["patient_id"]) for frame in frames]
    assert people[0] and people[1] and not people[0] & people[1]
    with Catalogue.open(hospital.settings) as catalogue:
        stored = slices(catalogue, sets=("train", "validate", "calibrate", "develop"))
        assert people[0] | people[1] == {ref.patient_id for ref in stored}
    (board,) = make_benchmark_folder(bench, hospital.settings).read("leaderboard.json")
    row = next(row for row in board["rows"] if row["name"] == "small")
    for figure in ("auroc", "pixel_ap"):
        each = [seeds[figure] for seeds in row["seeds"].values()]
        assert len(each) == 2 and row["figures"][figure]["value"] == pytest.approx(sum(each) / 2)
    assert row["units"] == board["counts"]["units"] == sum(map(len, frames))
    assert row["against"]["first"] == "small, mean of 2 folds"
    assert row["against"]["test"] == "paired patient bootstrap within 2 folds"
    controls = [row for row in board["rows"] if row["control"]]
    assert {"brightness"} < {row["name"] for row in controls}
    best = max(row["figures"]["auroc"]["value"] for row in controls if "auroc" in row["figures"])
    if board["part"] == "all units":
        assert row["against"]["auroc_second"] == pytest.approx(best)
    page = (make_benchmark_folder(bench, hospital.settings).path / "leaderboard.md").read_text()
    assert "Cross-fitted over patients: results are means over 2 folds" in page
    assert "Over the folds, mean ± standard deviation." in page and "its own seed" in page
    assert (make_benchmark_folder(bench, hospital.settings).path / "develop_auroc.png").stat().st_size > 1000


@pytest.mark.slow
def test_a_row_that_lacks_a_fold_has_no_mean(hospital: Any, bench: Benchmark) -> None:
    file = make_benchmark_folder(bench, hospital.settings).path / "cells" / "other.own.1.json"
    text = file.read_text()
    try:
        file.unlink()
        report = finish(bench, hospital.settings, "c")
        assert "other failed: The folds 1 are not finished" in report.markdown
    finally:
        file.write_text(text)


@pytest.mark.slow
def test_members_of_another_fold_are_refused(hospital: Any, bench: Benchmark) -> None:
    members = [{"run": RunFolder.open(run_of(bench, hospital, f"{name}.own.0")).run_id} for name in ("small", "other")]
    cell = next(cell for cell in bench.cells() if cell.key == "both.own.0")
    right = bench.run_config(cell, members)
    assemble(right, hospital.settings, again=False)
    for fold in (None, {"of": 2, "held_out": 1}):
        data = right.data.model_copy(update={"fold": type(right.data.fold)(**fold) if fold else None})
        with pytest.raises(ConfigError, match=r"data\.fold\b"):
            assemble(right.model_copy(update={"data": data}), hospital.settings, again=False)


@pytest.mark.slow
def test_a_run_whose_patients_were_reassigned_is_refused(new_hospital: Any, hospital: Any, tmp_path: Path) -> None:
    """A label that comes after training changes what a fold learns from; the old run may not be judged on it."""
    settings = new_hospital()
    read = write_phantoms(tmp_path / "read", 60, "MR", 0.3, 11, size=32, slices=3, grades=(3,), syntaxes=SYNTAXES[:1])
    ingest([tmp_path / "read"], settings)
    import_labels(write_labels(read.studies, tmp_path), settings)
    asked = ["data.fold={of: 2, held_out: 0}", "method={name: ae, widths: [8, 8], hidden: 16}", "training.images=32"]
    config = load_config(hospital.run_file, RunConfig, asked)
    run = train(config, settings)
    report = calibrate(run, settings)
    assert not report.version and list_registered(settings, "phantom-mr") == {}  # a fold's model reads no night
    with Catalogue.open(settings) as catalogue:
        one = choose(catalogue, config, settings, sets=("train",)).slices[0]
        with catalogue.session() as session:
            add_label(session, "instance", one.instance_id, "abnormal", source="t")
    with pytest.raises(CatalogueError, match="sets train"):
        evaluate(report.run, settings)
    fresh = train(config, settings)
    assert fresh.path != run.path  # other data, another run
