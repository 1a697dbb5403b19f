"""The detector's laws: a score belongs to its slice alone, capabilities, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.data.images.volume import VolumeConfig
from pipeline.detection.aggregate import aggregate_maps
from pipeline.detection.detector import Detector
from pipeline.detection.residual import residual
from pipeline.errors import ConfigError, Rejected
from pipeline.methods.base import Method, MethodConfig
from pipeline.nn.rng import Rng
from pipeline.types import Batch, SliceScore

Build = Callable[..., Detector]


class _Config(MethodConfig):
    name: str = "fake"


class Mapper(Method):
    def anomaly_map(self, x: torch.Tensor, rng: Rng) -> torch.Tensor:
        return x.mean(1, keepdim=True) * 3


class Scorer(Method):
    def score(self, x: torch.Tensor, rng: Rng) -> torch.Tensor:
        return x.flatten(1).mean(1)


class Noisy(Method):
    def reconstruct(self, x: torch.Tensor, rng: Rng, body: torch.Tensor | None = None) -> torch.Tensor:
        return x + 0.1 * rng.normal(*x.shape[1:])


def with_method(detector: Detector, kind: type[Method]) -> Detector:
    return replace(detector, model=replace(detector.model, method=kind(_Config(), 32, 1, 2)))


def part(batch: Batch, rows: list[int]) -> Batch:
    return Batch(batch.images[rows], batch.body[rows], tuple(batch.ids[i] for i in rows))


class Items:
    """A data set that does not come from this project."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch.ids)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": self.batch.images[i].numpy(), "body": self.batch.body[i], "id": self.batch.ids[i]}


def test_a_reconstructors_score_is_residual_then_aggregate(detector: Detector, batch: Batch) -> None:
    scored = detector.score_batch(batch)
    with detector.method.inference():
        x_hat = detector.method(batch.images)
    maps = residual(batch.images, x_hat, batch.body, detector.residual)
    torch.testing.assert_close(scored.maps, maps)
    torch.testing.assert_close(scored.reconstructions, torch.where(batch.body, x_hat, batch.images))
    torch.testing.assert_close(scored.scores, aggregate_maps(maps, batch.body, detector.aggregate))
    assert scored.scores.dtype == torch.float64


@pytest.mark.parametrize("kind", [Noisy, Mapper, Scorer, None])
def test_scores_are_subset_and_order_invariant(detector: Detector, batch: Batch, kind: type[Method] | None) -> None:
    subject = with_method(detector, kind) if kind else detector
    whole = subject.score_batch(batch).scores
    for rows in ([3], [6, 0, 2], [5, 4, 3, 2, 1, 0]):
        torch.testing.assert_close(subject.score_batch(part(batch, rows)).scores, whole[rows], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["vae", "dae", "vq_vae", "ddpm"])
def test_every_method_scores_a_slice_alone_as_in_company(build: Build, batch: Batch, name: str) -> None:
    subject, two = build(name), part(batch, [0, 5])
    whole = subject.score_batch(two).scores
    torch.testing.assert_close(subject.score_batch(part(batch, [5])).scores, whole[1:], rtol=1e-4, atol=1e-6)
    assert torch.isfinite(whole).all()


def test_randomness_is_the_seeds_and_the_ids_alone(detector: Detector, batch: Batch) -> None:
    noisy = with_method(detector, Noisy)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = noisy.score_batch(batch).scores
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(noisy.score_batch(batch).scores, first)
    assert not torch.equal(replace(noisy, seed=1).score_batch(batch).scores, first)
    assert not torch.equal(noisy.score_batch(replace(batch, ids=tuple("abcdefg"))).scores, first)


def test_capabilities_decide_what_comes_back(detector: Detector, batch: Batch) -> None:
    mapped = with_method(detector, Mapper).score_batch(batch)
    assert mapped.reconstructions is None
    torch.testing.assert_close(mapped.maps, torch.where(batch.body, batch.images * 3, 0.0))
    scored = with_method(detector, Scorer).score_batch(batch)
    assert scored.maps is scored.reconstructions is None
    torch.testing.assert_close(scored.scores, batch.images.flatten(1).mean(1).double())
    assert not with_method(detector, Scorer).has_maps
    with pytest.raises(ConfigError, match="cannot detect"):
        with_method(detector, Method)


def test_an_empty_body_has_no_score_and_harms_no_other(detector: Detector, batch: Batch) -> None:
    whole = detector.score_batch(batch).scores
    body = batch.body.clone()
    body[2] = False
    for subject in (detector, with_method(detector, Scorer)):
        scores = subject.score_batch(replace(batch, body=body)).scores
        assert [i for i in range(7) if math.isnan(scores[i])] == [2]
    torch.testing.assert_close(detector.score_batch(replace(batch, body=body)).scores[3:], whole[3:])


def test_bad_batches_are_refused_with_their_reason(detector: Detector, batch: Batch) -> None:
    broken = batch.images.clone()
    broken[4, 0, 3, 3] = torch.nan
    with pytest.raises(Rejected, match="1 of 7 images"):
        detector.score_batch(replace(batch, images=broken))
    with pytest.raises(ConfigError, match="expects images"):
        detector.score_batch(replace(batch, images=batch.images[..., :16]))
    for wrong in ({"ids": batch.ids[:3]}, {"body": batch.body[:3]}, {"body": batch.body.float()}):
        with pytest.raises(ConfigError, match=r"\bids\b"):
            detector.score_batch(replace(batch, **wrong))
    with pytest.raises(ConfigError):
        detector.score_batch(part(batch, []))


def test_broken_weights_are_told_from_broken_pixels(detector: Detector, batch: Batch) -> None:
    with torch.no_grad():
        next(detector.method.parameters()).fill_(torch.nan)
    with pytest.raises(Rejected, match="weights"):
        detector.score_batch(batch)


def test_a_constant_image_and_a_single_one_are_scored(detector: Detector, batch: Batch) -> None:
    flat = Batch(torch.full((1, 1, 32, 32), -1.0), batch.body[:1], ("only",))
    assert torch.isfinite(detector.score_batch(flat).scores).all()


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_slices_of_a_data_set_come_in_order(detector: Detector, batch: Batch, batch_size: int) -> None:
    results = list(detector.score_slices(Items(batch), batch_size))
    assert [result.id for result in results] == list(batch.ids)
    np.testing.assert_allclose([r.score for r in results], detector.score_batch(batch).scores, rtol=1e-5)
    assert results[0].values.shape == results[0].body.shape == results[0].reconstruction.shape == (32, 32)


def test_bf16_stays_near_fp32(build: Build, batch: Batch) -> None:
    full = build().score_batch(batch).scores
    half = build(precision="bf16").score_batch(batch)
    torch.testing.assert_close(half.scores, full, rtol=0.02, atol=1e-3)
    assert half.maps.dtype == torch.float32


def test_findings_carry_p_value_and_evidence(detector: Detector) -> None:
    slices = [SliceScore(f"i{i}", 0, "series", "study", "patient", s) for i, s in enumerate([0.2, 1.82, math.nan])]
    finding = detector.finding(slices)
    # 1.85 and 1.90 are at least 1.82: (1 + 2) / 40
    assert (finding.score, finding.p_value, finding.n_calibration, finding.guarantee) == (1.82, 3 / 40, 39, "conformal")
    assert [item.score for item in finding.evidence] == [1.82, 0.2]
    assert replace(detector, calibration=None).finding(slices).p_value is None


def test_a_detector_is_frozen_and_its_sizes_agree(detector: Detector, build: Build) -> None:
    with pytest.raises(FrozenInstanceError):
        detector.seed = 3
    with pytest.raises(ConfigError, match="image_size"):
        replace(detector, model=replace(detector.model, method=detector.method.config.build(64)))


def test_a_method_of_other_dimensions_is_refused(detector: Detector) -> None:
    with pytest.raises(ConfigError, match="3 dimensions"):
        replace(detector, model=replace(detector.model, method=detector.method.config.build(16, spatial_dims=3)))
    with pytest.raises(ConfigError, match="2 dimensions"):
        replace(detector, model=replace(detector.model, volumes=VolumeConfig(tile=32)))
