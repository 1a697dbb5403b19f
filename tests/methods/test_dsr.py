"""`dsr`: what is replaced, who learns when, and that it finds what a codec has no codes for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from pipeline.corruption import ShapeConfig
from pipeline.errors import ConfigError
from pipeline.methods import build_method
from pipeline.methods.component import ComponentConfig
from pipeline.methods.dsr import DsrConfig, DualDecoder
from pipeline.nn.rng import Rng
from pipeline.types import Batch


def build(small: dict[str, dict[str, Any]], **values: object) -> DualDecoder:
    method = build_method(DsrConfig(**small["dsr"] | values), 32)
    assert isinstance(method, DualDecoder)
    return method


def test_regions_lie_within_the_body_and_as_many_images_as_stated_have_none(
    batch: Batch, small: dict[str, dict[str, Any]]
) -> None:
    method = build(small, healthy=0.5, most=1, shape=ShapeConfig(radius=(0.2, 0.3)))
    method.quantiser.codebook.data.normal_()
    body = torch.zeros(400, 1, 32, 32, dtype=torch.bool)
    body[..., 8:24] = True
    codes = torch.randint(16, (400, 8, 8), generator=torch.Generator().manual_seed(0))
    replaced, region = method.corrupted(codes, body, Rng(range(400)))
    assert torch.equal((replaced != codes)[:, None], region)
    assert not region[..., :2].any() and not region[..., 6:].any()
    # binomial: standard deviation 0.025
    assert abs(region.flatten(1).any(dim=1).float().mean() - 0.5) < 0.08


def test_the_codec_learns_first_and_stays_as_it_is_after_that(batch: Batch, small: dict[str, dict[str, Any]]) -> None:
    method = build(small, share=0.25, healthy=0.0)
    first, second = method.phases
    assert (first.name, first.until, second.name, second.after) == ("codec_train", 0.25, "head", 0.25)
    terms = method.loss(batch, "head", Rng(range(16)))
    assert_close(terms["total"], terms["restored"] + terms["cross_entropy"] + terms["dice"])
    terms["total"].backward()
    assert all(p.grad is None for p in method.codec.parameters())
    assert all(p.grad is not None for part in second.modules for p in method.get_submodule(part).parameters())


def test_a_codec_without_a_codebook_is_refused(small: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(ConfigError, match="vae.*codebook"):
        build(small, codec=ComponentConfig(method={"name": "vae", **small["vae"]}))


@pytest.mark.slow
def test_a_trained_one_finds_replaced_codes(batch: Batch, small: dict[str, dict[str, Any]]) -> None:
    method = build(small, share=0.5, healthy=0.0, shape=ShapeConfig(radius=(0.15, 0.25)))
    for phase, steps in zip(method.phases, (40, 80), strict=True):
        optimiser = torch.optim.Adam(method.parameters_of(phase), lr=5e-3)
        for step in range(steps):
            optimiser.zero_grad()
            method.loss(batch, phase.name, Rng.training(0, 16 * step, 16))["total"].backward()
            optimiser.step()
            method.after_step(phase.name)
    tokens = method.codec.to_tokens(batch.images)
    codes, region = method.corrupted(tokens, batch.body, Rng(range(900, 916)))
    with method.inference():
        found_at = method(codes)[1].sigmoid()
        mask = region.repeat_interleave(4, -1).repeat_interleave(4, -2)
        assert found_at[mask].mean() > 2 * found_at[batch.body & ~mask].mean()
        assert torch.equal(method.anomaly_map(batch.images, Rng(range(16))), F.softplus(method(tokens)[1]))
