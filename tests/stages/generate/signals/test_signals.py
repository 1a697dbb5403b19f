"""The tasks `tokenise-signal` and `classify-signal` on invented speech and ECGs, from DICOM files to their tables."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pipeline.config import Settings
from pipeline.data.ingest.ingest import ingest
from pipeline.data.labels.labels import import_labels
from pipeline.dicom.phantom.waveform_folder import write_ecg_labels, write_ecgs, write_speech
from pipeline.dicom.phantom.write_signals import write_truth
from pipeline.errors import ConfigError, EmptySelection
from pipeline.stages.generate.run_task import run_task
from pipeline.stages.generate.signals.signal_tasks import ClassifyTask, TokeniseTask
from pipeline.stages.generate.signals.signal_truth import Stretch, frames_of, read_truth, units_by_frame

SPEECH = {
    "name": "tiny-speech",
    "data": {
        "route": "phantom-speech",
        "normaliser": {
            "kind": "signal", "features": "log_mel", "image_size": 64, "leads": [], "unit": "", "samples": 128,
            "low": -85, "high": -20, "level_db": -25,
        },
        "splits": {"normals": {"train": 0.5, "validate": 0.1, "develop": 0.4}, "others": {"develop": 1.0}},
    },
    "method": {"name": "vq_vae", "signals": 32, "widths": [16], "entries": 16, "style": True},
    "training": {"images": 64, "batch_size": 8, "validate_every_images": 64},
}  # fmt: skip
ECG = {
    "name": "tiny-ecg",
    "data": {
        "route": "phantom-ecg",
        "normaliser": {"kind": "signal"},
        "splits": {"normals": {"train": 0.3, "validate": 0.1, "develop": 0.6}, "others": {"develop": 1.0}},
    },
    "method": {"name": "vq_vae", "signals": 16, "widths": [16, 16, 16], "entries": 16},
    "training": {"images": 64, "batch_size": 8, "validate_every_images": 64},
}


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Path]:
    """A workspace with speech and ECGs, and the folder of their truth."""
    folder = tmp_path_factory.mktemp("ward")
    settings = Settings(workspace=folder / "workspace", workers=1)
    settings.workspace.mkdir()
    signals = [*write_speech(folder / "in", 10, 6, 4, phonemes=6), *write_ecgs(folder / "in", 60, 0.5, 4)]
    ingest([folder / "in"], settings)
    import_labels(write_ecg_labels(signals, folder), settings)
    write_truth(signals, folder / "truth.csv")
    return settings, folder


@pytest.mark.slow
def test_speech_is_written_in_units_and_judged(ward: tuple[Settings, Path]) -> None:
    settings, folder = ward
    task = TokeniseTask.model_validate({"name": "t", "run": SPEECH, "truth": folder / "truth.csv", "triples": 120})
    report = run_task(task, settings)
    names = [line.split("|")[1].strip() for line in report.table.split("\n\n")[0].splitlines()[2:]]
    assert names == ["log-mel", "k-means on log-mel", "MFCC", "k-means on MFCC", "vq_vae"]
    assert 0 <= report.metrics["abx"] <= 1
    assert 0 < report.metrics["bits_per_second"] <= 4 * 50  # 16 units, 50 of them a second
    rows = {row["representation"]: row for row in report.rows if "representation" in row}
    assert rows["log-mel"]["abx"]["value"] < 0.3  # spectra tell invented vowels apart before anything is learned
    heard = {row["converted_by"]: row for row in report.rows if "converted_by" in row}
    assert heard["real, as themselves"]["like_target"] > 0.5 > heard["nothing"]["like_target"]
    assert heard["shifted means"]["same_phoneme"] == pytest.approx(heard["nothing"]["same_phoneme"])
    assert report.folder.sheet.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError):
        run_task(task.model_copy(update={"truth": folder / "no.csv"}), settings)


@pytest.mark.slow
def test_ecgs_are_classified_by_their_codes(ward: tuple[Settings, Path]) -> None:
    settings, folder = ward
    values = {
        "name": "c", "run": ECG, "truth": folder / "truth.csv", "pretraining_images": 64, "tuning_images": 64,
        "batch": 8, "tested": 0.2, "transformer": {"width": 16, "layers": 1, "heads": 2}, "shares": [0.5, 1.0],
    }  # fmt: skip
    report = run_task(ClassifyTask.model_validate(values), settings)
    assert len(report.rows) == 12
    assert {row["by"] for row in report.rows} >= {"transformer from scratch", "transformer pre-trained on codes"}
    assert all(0 <= row["accuracy"]["value"] <= 1 for row in report.rows)
    again = run_task(ClassifyTask.model_validate(values), settings)
    assert again.metrics == report.metrics


@pytest.mark.slow
def test_a_truth_without_these_recordings_is_said(ward: tuple[Settings, Path]) -> None:
    settings, folder = ward
    other = folder / "other.csv"
    other.write_text("SOPInstanceUID,first,last,unit\n1.2.3,0,1,a\n")
    with pytest.raises(EmptySelection):
        run_task(TokeniseTask.model_validate({"name": "t", "run": SPEECH, "truth": other}), settings)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("SOPInstanceUID,first,last\n1.2,0,1\n", "unit"),
        ("SOPInstanceUID,first,last,unit\n1.2,x,1,a\n", "Line 2"),
        ("SOPInstanceUID,first,last,unit\n1.2,2,1,a\n", "Line 2"),
    ],
)
def test_a_faulty_truth_is_refused(text: str, match: str, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text(text)
    with pytest.raises(ConfigError, match=match):
        read_truth(tmp_path / "truth.csv", settings)


def test_stretches_become_frames() -> None:
    stretches = [Stretch(0.0, 0.1, "a"), Stretch(0.1, 0.25, "b"), Stretch(9.0, 9.5, "c")]
    assert frames_of(stretches[1], 100, 20) == slice(10, 20)
    assert units_by_frame(stretches, 20, 8) == ["a", "a", "b", "b", "b", "", "", ""]


def test_the_truth_of_phantoms_is_what_they_say(tmp_path: Path) -> None:
    (one,) = write_speech(tmp_path, 1, 1, 2, phonemes=3)
    with write_truth([one], tmp_path / "truth.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["unit"] for row in rows] == [name for name, _, _ in one.signal.spoken]
    assert float(rows[0]["last"]) == float(rows[1]["first"])
