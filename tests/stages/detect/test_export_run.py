"""An exported detector gives the scores and p-values of the one in the run, and refuses altered files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.cli import group
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.detection.score_files import score_scan
from pipeline.detection.stored_detector import load_detector
from pipeline.dicom.phantom.patient import make_patient
from pipeline.errors import ArtefactError, ConfigError
from pipeline.stages.detect.export_run import ExportReport, export_run
from pipeline.stages.detect.score import score
from pipeline.stages.run.run_folder import RunFolder
from pipeline.types import RunRef, Scan

pytest.importorskip("onnx", reason="the extra `export` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")


@pytest.fixture(scope="module")
def exported(
    hospital: object, evaluated_run: RunRef, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ExportReport, Path]:
    """The tiny autoencoder of the hospital, exported once by the command."""
    settings: Settings = hospital.settings  # type: ignore[attr-defined]
    out = tmp_path_factory.mktemp("export") / "tiny"
    typed = ["-w", str(settings.workspace), "export", Path(evaluated_run.path).name, "--out", str(out), "--json"]
    done = CliRunner().invoke(group, typed)
    assert done.exit_code == 0, done.output
    return ExportReport(**json.loads(done.stdout)), out


@pytest.fixture
def copy(exported: tuple[ExportReport, Path], tmp_path: Path) -> Path:
    """A copy of the export, to be spoilt."""
    return Path(shutil.copytree(exported[1], tmp_path / "copy"))


def unread_scan(seed: int) -> Scan:
    pixels = make_patient(seed, "MR", size=40, slices=3).physical
    return Scan(np.asarray(pixels, np.float32)[None], None, (5.0, 1.0, 1.0), "MR", "study", "series", "patient")


def test_it_keeps_its_identity_and_gives_the_same_results(
    exported: tuple[ExportReport, Path], evaluated_run: RunRef
) -> None:
    report, out = exported
    ours, theirs = load_detector(RunFolder.open(evaluated_run).detector), load_detector(out, evaluated_run.sha256)
    assert report.detector == evaluated_run.sha256
    assert report.slices >= 20 and report.units == report.slices and report.difference < 1e-6
    assert theirs.calibration == ours.calibration
    for seed in range(3):
        before, after = (score_scan(one, unread_scan(seed)) for one in (ours, theirs))
        assert abs(after.score - before.score) < 1e-6 and after.p_value == before.p_value
        assert before.heatmap is not None and after.heatmap is not None
        np.testing.assert_allclose(after.heatmap, before.heatmap, atol=1e-5)


def test_no_weights_of_torch_are_left_in_it(exported: tuple[ExportReport, Path]) -> None:
    assert {file.suffix for file in exported[1].rglob("*") if file.is_file()} == {".json", ".onnx"}


def test_a_night_scores_with_it(
    exported: tuple[ExportReport, Path], hospital: object, evaluated_run: RunRef, copy: Path
) -> None:
    settings: Settings = hospital.settings  # type: ignore[attr-defined]
    listed = []
    for folder in (None, exported[1]):
        report = score(evaluated_run, settings, again=True, exported=folder)
        assert report.exported == ("" if folder is None else exported[0].sha256)
        with Catalogue.open(settings) as catalogue:
            listed.append({row.study_id: row for row in catalogue.list_findings(report.run_id)})
    before, after = listed
    assert len(before) == 8 and before.keys() == after.keys()
    for study, row in before.items():
        assert abs(after[study].score - row.score) < 1e-6
        assert (after[study].p_value, after[study].flagged) == (row.p_value, row.flagged)
    lower(copy / "detector.json")
    with pytest.raises(ArtefactError):
        score(evaluated_run, settings, again=True, exported=copy)


def widen(file: Path) -> None:
    """Widen the window of the normaliser: the complaint about exports elsewhere."""
    file.write_text(file.read_text().replace('"image_size": 32', '"image_size": 64'))


def lower(file: Path) -> None:
    """Lower every threshold."""
    spec = json.loads(file.read_text())
    spec["calibration"]["scores"] = [score / 2 for score in spec["calibration"]["scores"]]
    file.write_text(json.dumps(spec))


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("network.onnx", lambda file: file.write_bytes(file.read_bytes()[:-1] + b"x")),
        ("network.onnx", Path.unlink),
        ("model.json", widen),
        ("manifest.json", lambda file: file.write_text(file.read_text() + " ")),
        ("detector.json", lower),
        ("export.json", lambda file: file.write_text("{}")),
    ],
)
def test_altered_files_are_refused(copy: Path, name: str, spoil: Callable[[Path], object]) -> None:
    load_detector(copy)
    (file,) = copy.rglob(name)
    spoil(file)
    with pytest.raises(ArtefactError):
        load_detector(copy)


def test_a_folder_with_content_is_left_as_it_is(hospital: object, evaluated_run: RunRef, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not an empty folder"):
        export_run(Path(evaluated_run.path).name, hospital.settings, tmp_path)  # type: ignore[attr-defined]
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_an_export_that_answers_otherwise_is_not_left_behind(
    hospital: object, evaluated_run: RunRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.methods.onnx_network import OnnxReconstructor

    right = OnnxReconstructor.ask
    monkeypatch.setattr(OnnxReconstructor, "ask", lambda self, x: right(self, x) + 0.01)
    with pytest.raises(ConfigError, match="does not agree"):
        export_run(Path(evaluated_run.path).name, hospital.settings, tmp_path / "out")  # type: ignore[attr-defined]
    assert not (tmp_path / "out").exists() and list(tmp_path.iterdir()) == []
