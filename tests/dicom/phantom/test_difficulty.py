"""Difficulty of phantoms: trivial measures do not find the lesions, but knowing the healthy twin does."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

from pipeline.dicom.phantom import LesionKind, PhantomPatient, make_patient

KINDS = tuple(LesionKind)
EACH = 200


def _png_bytes(values: np.ndarray) -> int:
    buffer = io.BytesIO()
    Image.fromarray((values.astype(np.int32) - int(values.min())).astype(np.uint16)).save(buffer, "PNG")
    return len(buffer.getvalue())


def _trivial(patient: PhantomPatient) -> dict[str, float]:
    values = patient.physical[0]
    inside = values[patient.body[0]]
    spread = float(inside.std())
    rows, columns = np.gradient(values / spread)
    return {
        "mean intensity": float(values.mean()),
        "mean in body": float(inside.mean()),
        "standard deviation": float(values.std()),
        "brightest pixel": float(np.quantile(inside, 0.999) / spread),
        "gradient energy": float((rows**2 + columns**2).mean()),
        "file size": _png_bytes(patient.stored[0]),
        "position": patient.positions[0],
    }


def _pair(seed: int, modality: str, kind: LesionKind | None) -> PhantomPatient:
    return make_patient(seed, modality, kind, 64)


@pytest.mark.parametrize("modality", ["CT", "MR", "CR", "DX", "US"])
def test_trivial_measures_do_not_separate(modality: str) -> None:
    """With 200 + 200 the standard error of a blind measure is 0.029: 0.35 to 0.65 is five of them."""
    normal = [_trivial(_pair(seed, modality, None)) for seed in range(EACH)]
    abnormal = [_trivial(_pair(10_000 + seed, modality, KINDS[seed % 4])) for seed in range(EACH)]
    truth = np.repeat([0, 1], EACH)
    aurocs = {name: float(roc_auc_score(truth, [item[name] for item in normal + abnormal])) for name in normal[0]}
    assert {name: auroc for name, auroc in aurocs.items() if not 0.35 <= auroc <= 0.65} == {}


@pytest.mark.parametrize("modality", ["CT", "MR", "CR"])
def test_a_perfect_reconstruction_finds_most(modality: str) -> None:
    """The residual to the healthy twin's noisy scan on another day, as an ideal detector would see it."""
    scores = []
    for seed in range(40):
        # another patient's noise represents the noise that no reconstruction can know
        for kind in (None, KINDS[seed % 4]):
            scan, twin = _pair(seed, modality, kind), _pair(seed, modality, None)
            noise = np.random.default_rng([seed, kind is None]).standard_normal((64, 64)) * _noise(scan)
            change = gaussian_filter(scan.physical[0] - twin.physical[0] + noise, 1.5) / _noise(scan)
            scores.append((kind is not None, np.sort(np.abs(change[scan.body[0]]))[-30:].mean()))
    truth, values = zip(*scores, strict=True)
    assert roc_auc_score(truth, values) > 0.9


def _noise(patient: PhantomPatient) -> float:
    """Standard deviation of the noise in units of `physical`."""
    return patient.facts["noise"] * (1.0 if patient.modality == "CT" else patient.facts["gain"])


def test_shuffled_labels_say_nothing() -> None:
    patients = [_pair(seed, "MR", KINDS[seed % 4]) for seed in range(EACH)]
    values = [float(patient.physical[patient.body].mean()) for patient in patients]
    truth = np.random.default_rng(0).permutation(np.repeat([0, 1], EACH // 2))
    assert 0.35 <= roc_auc_score(truth, values) <= 0.65
