"""A tiny detector, its images, and DICOM files that it can score."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy.stats import betabinom

from pipeline.data.images.normalise import Normaliser, Plane, parse_normaliser
from pipeline.detection.config import DetectionConfig
from pipeline.detection.conformal import Calibration, Unit
from pipeline.detection.detector import Detector
from pipeline.detection.scorer import Scorer
from pipeline.dicom.phantom.patient import PhantomPatient, make_patient
from pipeline.methods import build_method, parse_method
from pipeline.methods.stored_model import Model
from pipeline.types import Batch, Finding, SliceScore

SIZE = 32
SMALL = {
    "ae": {"widths": (8, 8), "hidden": 32},
    "conditional_vae": {"widths": (8, 8), "latent": 4},
    "ddpm": {"denoiser": {"widths": (8, 16), "attention": (False, False)}, "start_times": (100, 200), "steps": 3},
}


def make_detector(method: str = "ae", seed: int = 0, **detection: object) -> Detector:
    """An untrained method at 32 px on the CT abdomen window, not calibrated."""
    config = parse_method({"name": method, **SMALL.get(method, {})})
    normaliser = Normaliser(parse_normaliser({"kind": "ct_window", "image_size": SIZE}))
    model = Model(build_method(config, SIZE), normaliser)
    return Detector(model, DetectionConfig.model_validate(detection), "ct", seed)


@pytest.fixture
def detector() -> Detector:
    """A tiny autoencoder, calibrated on 39 made-up scores 0.00, 0.05, ... 1.90."""
    units = [Unit(f"s{i}", f"p{i}", i * 0.05) for i in range(39)]
    return make_detector().calibrated(Calibration.fit(units))


@pytest.fixture
def build() -> Callable[..., Detector]:
    """Makes detectors: `build(method, seed, residual={...}, aggregate={...})`."""
    return make_detector


@pytest.fixture
def batch() -> Batch:
    """Seven images of smooth noise with round bodies."""
    generator = torch.Generator().manual_seed(11)
    images = torch.nn.functional.interpolate(
        torch.rand(7, 1, 8, 8, generator=generator) * 2 - 1, size=(SIZE, SIZE), mode="bilinear"
    )
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIZE), torch.linspace(-1, 1, SIZE), indexing="ij")
    body = (x**2 + y**2 < 0.8).expand(7, 1, SIZE, SIZE).clone()
    return Batch(images, body, tuple(f"slice{i}" for i in range(7)))


@pytest.fixture
def ct_series(tmp_path: Path) -> Callable[..., list[Path]]:
    """Writes CT slices: a bright disc in air, `count` of them, 5 mm apart; returns their paths."""

    def write(count: int = 3, study: str = "1.2.3", series: str = "1.2.3.4", seed: int = 0) -> list[Path]:
        return [_write_ct(tmp_path / f"{series}-{i}.dcm", study, series, i, seed) for i in range(count)]

    return write


def _write_ct(path: Path, study: str, series: str, number: int, seed: int) -> Path:
    rng = np.random.default_rng((seed, number))
    y, x = np.mgrid[-1:1:40j, -1:1:48j]
    hu = np.where(x**2 + y**2 < 0.7, 40 + 20 * rng.normal(size=x.shape), -1000)
    ds = FileDataset(path, {}, file_meta=_meta(), preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, ds.file_meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = study, series, "CT"
    ds.PatientID, ds.PatientName, ds.PatientSex, ds.PatientAge = "SECRET-ID", "Secret^Name", "F", "045Y"
    ds.InstanceNumber, ds.ImageType = number + 1, ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 5.0 * number], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness = [1, 1], 5
    ds.Rows, ds.Columns = hu.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    ds.PixelData = np.clip(hu + 1024, 0, 4095).astype("<u2").tobytes()
    ds.save_as(path, enforce_file_format=True)
    return path


def _meta() -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


class Phantoms:
    """Independent phantom people, one normalised CT slice of 32 pixels each, and a detector's scores for them."""

    normaliser = Normaliser(parse_normaliser({"kind": "ct_window", "image_size": SIZE}))

    def __call__(self, seeds: Iterable[int]) -> list[dict[str, Any]]:
        """Return a data set: one item per seed, one seed per person."""
        return [self._item(make_patient(seed, "CT", size=48)) for seed in seeds]

    def _item(self, patient: PhantomPatient) -> dict[str, Any]:
        (item,) = self.normaliser.series([Plane(patient.physical[0])])
        return {"image": item.image, "body": item.body, "id": f"patient{patient.seed}"}

    def findings(self, scorer: Scorer, people: list[dict[str, Any]]) -> list[Finding]:
        results = scorer.score_slices(people, 128)
        return [scorer.finding([SliceScore(r.id, 0, r.id, f"study of {r.id}", r.id, r.score)]) for r in results]

    def calibrated(self, scorer: Scorer, people: list[dict[str, Any]]) -> Calibration:
        return Calibration.fit(Unit(f.study_id, f.patient_id, f.score) for f in self.findings(scorer, people))


@pytest.fixture(scope="session")
def phantoms() -> Phantoms:
    """Makes independent phantom people and scores them with detectors."""
    return Phantoms()


@pytest.fixture
def false_alarms() -> Callable[..., dict[float, float]]:
    """The test that every calibration must pass: p-value of the false alarms, per target rate.

    `false_alarms(value_of, n, fresh)`: `value_of(alpha)` is the threshold in use, n the calibration units behind it,
    `fresh` the scores of normal units that nothing has seen. The count among m follows BetaBinomial(m, k, n + 1 - k).
    """

    def p_values(
        value_of: Callable[[float], float], n: int, fresh: np.ndarray, upper_only: bool = False
    ) -> dict[float, float]:
        chances = {}
        for alpha in (0.01, 0.05, 0.1):
            k = math.floor(round(alpha * (n + 1), 9))
            law, count = betabinom(len(fresh), k, n + 1 - k), int((fresh > value_of(alpha)).sum())
            upper, lower = law.sf(count - 1), law.cdf(count)
            chances[alpha] = float(upper if upper_only else min(1.0, 2 * min(upper, lower)))
        return chances

    return p_values


@pytest.fixture
def is_refuted() -> Callable[[list[float]], bool]:
    """Holm at 1 % over all cells: True where at least one refutes (its first step is Bonferroni's)."""
    return lambda p_values: min(p_values) * len(p_values) < 0.01
