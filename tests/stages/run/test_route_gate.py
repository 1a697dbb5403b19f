"""Out-of-domain gate of a run: strangers are held with a reason, once, and the rest is scored as before."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch

from pipeline.config import Settings, load_config
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.scan_measures import read_measures
from pipeline.errors import ArtefactError, TooFewNormals
from pipeline.stages.detect.calibrate import calibrate
from pipeline.stages.detect.score import score
from pipeline.stages.detect.train import train
from pipeline.stages.run.route_gate import FOLDER, OUT_OF_DOMAIN, few_slices, load_gate_of_run, measure
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder
from pipeline.types import RunRef
from tests.stages.conftest import Hospital

GATE = ["method={name: pca, directions: 8}", "domain_gate={depths: [1, 2], false_rejection: 0.2}"]


@dataclass(frozen=True, slots=True)
class Gated:
    """A workspace with tonight's scans, three of them noise, and a calibrated run with a gate."""

    settings: Settings
    run: RunRef
    strangers: int = 3


@pytest.fixture(scope="module")
def gated(hospital: Hospital, tmp_path_factory: pytest.TempPathFactory) -> Gated:
    from pipeline.data.ingest.ingest import ingest
    from pipeline.dicom.phantom.folder import SYNTAXES, write_phantoms

    folder = tmp_path_factory.mktemp("gated")
    shutil.copytree(hospital.settings.workspace, folder / "workspace", ignore=shutil.ignore_patterns("prefect"))
    settings = Settings(workspace=folder / "workspace", workers=1)
    write_phantoms(folder / "strangers", 3, "MR", 0.0, 77, size=32, slices=3, syntaxes=SYNTAXES[:1])
    rng = np.random.default_rng(0)
    for file in sorted((folder / "strangers").rglob("*.dcm")):
        scan = pydicom.dcmread(file)
        noise = rng.integers(200, 1000, size=scan.pixel_array.shape).astype(scan.pixel_array.dtype)
        scan.PixelData = noise.tobytes()
        scan.save_as(file)
    ingest([folder / "strangers"], settings)
    config = load_config(hospital.run_file, RunConfig, GATE)
    return Gated(settings, calibrate(train(config, settings), settings).run)


def test_strangers_are_held_with_a_reason_and_the_rest_is_scored(gated: Gated) -> None:
    report = score(gated.run, gated.settings)
    with Catalogue.open(gated.settings) as catalogue:
        held = [row for row in catalogue.list_not_scored(report.run_id) if row.code == OUT_OF_DOMAIN]
        scored = {row.study_id for row in catalogue.list_findings(report.run_id)}
        measures = read_measures(catalogue, "phantom-mr", gated.run.sha256)
    gate = load_gate_of_run(RunFolder(Path(gated.run.path)))
    assert gate is not None and gate.calibration is not None
    assert all("a distance of" in row.sentence and f"{gate.threshold.value:.4g}" in row.sentence for row in held)
    assert gated.strangers <= len(held) <= gated.strangers + 5  # of 8 others a fifth may be held on average
    assert report.studies + len(held) == 8 + gated.strangers == len(measures)
    assert {study for study, row in measures.items() if row["distance"] <= gate.threshold.value} >= scored
    again = score(gated.run, gated.settings)
    assert (again.studies, again.not_scored) == (0, 0)  # nothing is held, or listed, a second time


def test_the_gate_is_sealed_with_its_run(gated: Gated) -> None:
    folder = RunFolder(Path(gated.run.path))
    file = next((folder.path / FOLDER).glob("*.safetensors"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(ArtefactError):
            score(gated.run, gated.settings)
    finally:
        file.write_bytes(whole)


def test_a_gate_that_could_not_be_calibrated_is_refused_before_training(hospital: Hospital) -> None:
    config = load_config(hospital.run_file, RunConfig, ["domain_gate={false_rejection: 0.001}"])
    with pytest.raises(TooFewNormals) as refused:
        train(config, hospital.settings)
    assert refused.value.need == 999


def test_members_of_an_ensemble_have_no_gate_of_their_own(hospital: Hospital) -> None:
    config = load_config(hospital.run_file, RunConfig, GATE)
    assert config.build_member_run({"method": {"name": "pca"}}).domain_gate is None


def test_measures_of_images_by_hand() -> None:
    body = torch.ones(2, 1, 64, 64, dtype=torch.bool)
    ramp = torch.linspace(-1, 1, 64).expand(1, 1, 64, 64)
    noise = torch.from_numpy(np.random.default_rng(1).normal(0, 0.1, size=(1, 1, 64, 64))).float()
    flat, noisy = measure(torch.cat([ramp, noise]), body)
    assert flat["brightness"] == pytest.approx(0, abs=1e-6)
    assert flat["contrast"] == pytest.approx(np.linspace(-1, 1, 64).std())
    assert flat["sharpness"] == pytest.approx(2 / 63 * 63 / 64, rel=1e-4)
    assert flat["noise"] == pytest.approx(0, abs=1e-6)
    assert noisy["noise"] == pytest.approx(0.1, rel=0.1)


def test_nine_slices_speak_for_a_series(hospital: Hospital) -> None:
    from pipeline.data.sets.selection import Selection
    from pipeline.types import SliceRef

    refs = tuple(SliceRef("i", frame, "s", "t", "p", "k", {}, frame / 40) for frame in range(41))
    chosen = few_slices(Selection(refs, (), {}))
    assert [ref.frame for ref in chosen.slices] == [2, 6, 11, 15, 20, 25, 29, 34, 38]
    assert few_slices(Selection(refs[:4], (), {})).slices == refs[:4]
