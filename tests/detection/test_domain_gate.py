"""The gate before detectors: distances by hand, a threshold that keeps its promise, and an artefact that is checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor

from pipeline.detection.conformal import Unit
from pipeline.detection.domain_gate import (
    DomainGate,
    GateConfig,
    describe,
    fit_gate,
    load_gate,
    save_gate,
)
from pipeline.errors import ArtefactError, ConfigError, EmptySelection, Rejected, TooFewNormals
from pipeline.nn.rng import Rng

CONFIG = GateConfig(depths=(1, 2), false_rejection=0.1)


def smooth(count: int, seed: int) -> Tensor:
    """Images of smooth noise."""
    noise = Rng([seed * 1000 + number for number in range(count)]).normal(1, 8, 8)
    return torch.nn.functional.interpolate(noise, (32, 32), mode="bilinear").clamp(-1, 1)


def units(scores: np.ndarray) -> list[Unit]:
    return [Unit(f"u{number}", f"p{number}", float(score)) for number, score in enumerate(scores)]


@pytest.fixture(scope="module")
def gate() -> DomainGate:
    plain = fit_gate(smooth(40, 1), CONFIG, route="somewhere", images={"normaliser": "mine"})
    return plain.calibrated(units(plain.score(smooth(39, 2))))


def test_gaussian_scores_are_mahalanobis_distances(gate: DomainGate) -> None:
    learned, seen = (describe(x, CONFIG.depths).double().numpy() for x in (smooth(40, 1), smooth(6, 3)))
    mean, scale = learned.mean(axis=0), learned.std(axis=0, ddof=1).clip(1e-6)
    fitted = LedoitWolf(assume_centered=True).fit((learned - mean) / scale)
    expected = np.sqrt(fitted.mahalanobis((seen - mean) / scale))
    np.testing.assert_allclose(gate.score(smooth(6, 3)), expected, rtol=1e-3)


def test_neighbours_are_the_nearest_training_images() -> None:
    near = fit_gate(smooth(12, 1), replace_density(CONFIG))
    assert near.score(smooth(12, 1)) == pytest.approx(np.zeros(12), abs=2e-2)
    two = fit_gate(smooth(12, 1), replace_density(CONFIG, neighbours=2))
    assert (two.score(smooth(12, 1)) > 0.1).all()


def replace_density(config: GateConfig, neighbours: int = 1) -> GateConfig:
    return config.model_copy(update={"density": "neighbours", "neighbours": neighbours})


@pytest.mark.parametrize("config", [CONFIG, replace_density(CONFIG, 3)], ids=["gaussian", "neighbours"])
def test_strangers_are_refused_and_normals_are_not(config: GateConfig) -> None:
    plain = fit_gate(smooth(60, 1), config)
    gate = plain.calibrated(units(plain.score(smooth(39, 2))))
    assert gate.threshold.k == 4 and gate.threshold.expected_fpr == pytest.approx(0.1)
    noise = Rng(range(20)).normal(1, 32, 32).clamp(-1, 1)
    assert gate.refuses(noise).all()
    # Of 200 fresh normals BetaBinomial(200, 4, 36) are refused: 20 on average, seldom over 100.
    assert gate.refuses(smooth(200, 4)).sum() <= 100


def test_an_image_is_scored_by_itself(gate: DomainGate) -> None:
    x = smooth(7, 5)
    np.testing.assert_allclose(gate.score(x[[4]]), gate.score(x)[[4]], rtol=1e-4)
    np.testing.assert_allclose(gate.score(x.flip(0)), gate.score(x)[::-1], rtol=1e-4)


def test_the_artefact_says_the_same_and_changed_bytes_are_refused(gate: DomainGate, tmp_path: Path) -> None:
    sha256 = save_gate(tmp_path, gate)
    again = load_gate(tmp_path, sha256)
    assert (again.route, again.images, again.sha256) == ("somewhere", {"normaliser": "mine"}, sha256)
    assert again.threshold == gate.threshold
    np.testing.assert_array_equal(again.score(smooth(5, 6)), gate.score(smooth(5, 6)))
    with pytest.raises(ArtefactError, match="required"):
        load_gate(tmp_path, "0" * 64)
    spec = tmp_path / "model.json"
    spec.write_text(spec.read_text().replace("somewhere", "elsewhere"))
    with pytest.raises(ArtefactError, match=r"model\.json"):
        load_gate(tmp_path)


@pytest.mark.parametrize(
    ("work", "error"),
    [
        (lambda gate: fit_gate(smooth(9, 1), CONFIG), EmptySelection),
        (lambda gate: gate.score(smooth(3, 1)[..., :16, :16]), ConfigError),
        (lambda gate: gate.score(smooth(3, 1).repeat(1, 2, 1, 1)), ConfigError),
        (lambda gate: gate.score(torch.full((1, 1, 32, 32), torch.nan)), Rejected),
        (lambda gate: gate.calibrated([]), TooFewNormals),
        (lambda gate: gate.calibrated(units(np.arange(5.0))).threshold, TooFewNormals),
        (lambda gate: replace(gate, calibration=None).refuses(smooth(3, 1)), ArtefactError),
    ],
)
def test_what_cannot_be_done_is_refused(gate: DomainGate, work: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        work(gate)  # type: ignore[operator]
