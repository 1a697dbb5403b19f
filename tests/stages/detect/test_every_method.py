"""Bad input, for every method through the same door: the stages. One image, one patient, blank scans, too few normals.

A method must be right or say why it cannot be; a number where there is no answer is always wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from sqlalchemy import select

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import Patient
from pipeline.data.ingest.ingest import ingest
from pipeline.data.labels.labels import import_labels
from pipeline.detection.score_files import score_scan
from pipeline.detection.scorer import Scorer
from pipeline.detection.stored_detector import load_detector
from pipeline.dicom.phantom.folder import SYNTAXES, write_labels, write_phantoms
from pipeline.errors import ArtefactError, Rejected, RejectionCode, TooFewNormals
from pipeline.methods import METHODS
from pipeline.methods.stored_model import load_model
from pipeline.stages.detect.calibrate import CalibrationReport, calibrate
from pipeline.stages.detect.score import score
from pipeline.stages.detect.train import train
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder
from pipeline.types import RunRef, Scan

SIZE, UNREAD = 32, 3
# Optional answers of a method are tested in the same way.
ANSWERS = {
    "ddpm, each start time z-scored": {"name": "ddpm", "combine": "residual"},
    "ddpm, second pass": {"name": "ddpm", "second_pass": {"steps": 2}},
    "f_anogan, the paper's score": {"name": "f_anogan", "answer": "discrepancy"},
    "vae, restored": {"name": "vae", "restoration": {"steps": 3}},
    "vq_vae2, likelihood": {"name": "vq_vae2", "answer": "likelihood"},
    "vqgan, restored": {"name": "vqgan", "answer": "restoration"},
}


@dataclass(frozen=True, slots=True)
class OneOfAKind:
    """A workspace whose train set is one image of one patient; three scans and two blank ones wait to be scored."""

    settings: Settings
    normals: dict[str, float]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory, new_hospital: Callable[[], Settings]) -> OneOfAKind:
    folder, settings = tmp_path_factory.mktemp("one"), new_hospital()
    plain = {"size": SIZE, "grades": (3,), "syntaxes": SYNTAXES[:1]}
    read = write_phantoms(folder / "read", 30, "MR", 0.0, 21, **plain)
    ingest([folder / "read"], settings)
    share = _share_of_one(settings)
    write_phantoms(folder / "unread", UNREAD, "MR", 0.5, 22, **plain)
    for file in write_phantoms(folder / "blank", 2, "MR", 0.0, 23, **plain).files:
        _blank(file.path)
    ingest([folder / "unread", folder / "blank"], settings)
    import_labels(write_labels(read.studies, folder), settings)
    return OneOfAKind(settings, {"train": share, "validate": 0.45, "calibrate": 0.55 - share})


def _blank(path: Path) -> None:
    """Give every pixel of a file the same value."""
    ds = dcmread(path)
    ds.PixelData = np.full((ds.Rows, ds.Columns), 300, ds.pixel_array.dtype).tobytes()
    ds.save_as(path)


def _share_of_one(settings: Settings) -> float:
    """Return the fraction that only the patient with the highest draw falls into."""
    with Catalogue.open(settings) as catalogue, catalogue.session() as session:
        draws = sorted(session.scalars(select(Patient.draw)))
    return 1 - sum(draws[-2:]) / 2


def run_config(hospital: OneOfAKind, method: dict[str, Any], **changes: Any) -> RunConfig:
    values = {
        "name": "one",
        "data": {
            "route": "phantom-mr",
            "normaliser": {"kind": "mr_percentile", "image_size": SIZE},
            "splits": {"normals": hospital.normals, "others": {"develop": 1.0}},
        },
        "method": method,
        "training": {"images": 24, "batch_size": 2, "validate_every_images": 24},
        "detection": {"flagging": {"rule": "capacity", "capacity": 1, "alpha": 0.01}},
    }
    return RunConfig.model_validate(values | changes)


@pytest.fixture(scope="module", params=[*METHODS, *ANSWERS])
def calibrated(request: pytest.FixtureRequest, hospital: OneOfAKind, small: dict[str, Any]) -> CalibrationReport:
    """Each method, trained on one image and calibrated on too few normals for 1 %."""
    asked = ANSWERS.get(request.param, {"name": request.param})
    run = train(run_config(hospital, small.get(asked["name"], {}) | asked), hospital.settings)
    return calibrate(run, hospital.settings, to_registry=False)


@pytest.fixture(scope="module")
def detector(calibrated: CalibrationReport) -> Scorer:
    """The detector of each method, loaded once."""
    return load_detector(RunFolder.open(calibrated.run).detector)


def test_one_image_of_one_patient_is_enough_to_train_and_too_few_normals_are_said_to_be(
    calibrated: CalibrationReport,
) -> None:
    data = RunFolder.open(calibrated.run).read("data.json")
    assert (data["train"]["slices"], data["train"]["patients"]) == (1, 1)
    assert 5 < calibrated.n < 99 and calibrated.guarantee == "conformal"
    assert calibrated.threshold is None and "99" in calibrated.refusal


def test_blank_scans_are_listed_with_their_code_and_the_others_get_finite_scores(
    hospital: OneOfAKind, calibrated: CalibrationReport
) -> None:
    report = score(calibrated.run, hospital.settings)
    with Catalogue.open(hospital.settings) as catalogue:
        findings, refused = catalogue.list_findings(report.run_id), catalogue.list_not_scored()
    assert report.studies == len(findings) == UNREAD and report.flagged == 1
    assert all(math.isfinite(row.score) and 0 < row.p_value <= 1 for row in findings)
    assert [row.code for row in refused] == ["empty-foreground"] * 2  # listed once, whichever method met them first


def scan(pixels: np.ndarray) -> Scan:
    return Scan(pixels[None, None].astype(np.float32), None, (5.0, 1.0, 1.0), "MR", "study", "series", "patient", ())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_pixels_are_refused_with_their_code(detector: Scorer, value: float) -> None:
    pixels = np.tile(np.linspace(0, 900, 40), (40, 1))
    pixels[20, 20] = value
    with pytest.raises(Rejected) as refused:
        score_scan(detector, scan(pixels))
    assert refused.value.code is RejectionCode.NON_FINITE


@pytest.mark.parametrize("shape", [(37, 53), (1, 1), (3, 2), (200, 9)])
def test_odd_and_tiny_scans_get_a_finite_score_or_a_reason(
    detector: Scorer, calibrated: CalibrationReport, shape: tuple[int, int]
) -> None:
    rng = np.random.default_rng(3)
    try:
        result = score_scan(detector, scan(rng.uniform(100, 900, shape)))
    except Rejected as refused:
        assert refused.code in (RejectionCode.EMPTY_FOREGROUND, RejectionCode.NO_CONTRAST)
        return
    assert math.isfinite(result.score) and result.n_calibration == calibrated.n
    assert (result.heatmap is not None) == detector.has_maps
    if result.heatmap is not None:
        assert result.heatmap.shape == (1, *shape) and np.isfinite(result.heatmap).all()


def test_a_rate_that_the_normals_cannot_bear_is_refused_and_nothing_is_flagged(
    hospital: OneOfAKind, small: dict[str, Any]
) -> None:
    flagging = {"flagging": {"rule": "fpr", "alpha": 0.01}}
    config = run_config(hospital, {"name": "ae", **small["ae"]}, detection=flagging)
    with pytest.raises(TooFewNormals) as early:  # before the first step
        train(config, hospital.settings)
    assert (early.value.have, early.value.need) == (13, 99)
    run = train(config, hospital.settings, purpose="rank")
    calibrated = calibrate(run, hospital.settings, to_registry=False)
    with Catalogue.open(hospital.settings) as catalogue:
        before = len(catalogue.list_findings())
        with pytest.raises(TooFewNormals, match="99 .*13"):
            score(calibrated.run, hospital.settings)
        assert len(catalogue.list_findings()) == before


def test_a_codec_that_is_missing_or_another_one_stops_the_training_before_it_begins(
    hospital: OneOfAKind, small: dict[str, Any]
) -> None:
    codec = train(run_config(hospital, {"name": "vq_vae", **small["vq_vae"]}), hospital.settings)
    sha256 = load_model(codec.path).origin.sha256

    def trained_on(run: str, sha256: str) -> RunRef:
        asked = {**small["latent_diffusion"], "codec": {"run": run, "sha256": sha256}}
        return train(run_config(hospital, {"name": "latent_diffusion", **asked}), hospital.settings)

    with pytest.raises(ArtefactError, match="nowhere"):
        trained_on("nowhere", sha256)
    with pytest.raises(ArtefactError, match="altered"):
        trained_on(Path(codec.path).name, "0" * 64)
    trained = trained_on(Path(codec.path).name, sha256)
    assert load_model(trained.path).components["codec"].origin.sha256 == sha256
    weights = Path(codec.path) / "model" / "weights.safetensors"
    before = weights.read_bytes()
    weights.unlink()
    try:
        with pytest.raises(ArtefactError, match="weights"):  # trained again, as its detector cannot score
            trained_on(Path(codec.path).name, sha256)
    finally:
        weights.write_bytes(before)
    assert trained_on(Path(codec.path).name, sha256) == trained
