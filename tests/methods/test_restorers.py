"""Regression, conditional diffusion and conditional GANs, which learn from degraded images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.corruption.degrade_fields import RestoringFields
from pipeline.errors import ConfigError
from pipeline.methods import build_method, parse_method
from pipeline.methods.base import Method
from pipeline.methods.conditional_ddpm import ConditionalDdpm
from pipeline.nn.rng import Rng
from pipeline.types import Batch

NAMES = ("regression_unet", "conditional_ddpm", "conditional_flow", "conditional_gan")
TILES = {"steps": [{"kind": "tiles", "count": 4}]}
BOX = {"steps": [{"kind": "box"}]}


def make(name: str, small: dict[str, Any], **changes: Any) -> Method:
    return build_method(parse_method({"name": name, **small.get(name, {}), **changes}), 32)


def two_levels(rows: int) -> Batch:
    """Images that are +0.5 or -0.5 everywhere, as often, with a body that fills the frame."""
    sign = torch.tensor([1.0, -1.0]).repeat(rows // 2)[:, None, None, None]
    images = (0.5 * sign).expand(rows, 1, 32, 32).contiguous()
    return Batch(images, images > -2, tuple(map(str, range(rows))))


@pytest.mark.parametrize("name", NAMES)
def test_tiles_are_restored_from_the_others_only(name: str, small: dict[str, Any]) -> None:
    method = make(name, small, degradations=[TILES], asked=TILES)
    for parameter in method.parameters():  # a last layer may begin at zero, and see nothing
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    x = torch.zeros(2, 1, 32, 32)
    x[1, :, 1, 1] = 0.9  # in the first tile, which is restored while it is hidden
    keys = Rng.scoring(0, ["same", "same"])
    x_hat = method.reconstruct(x, keys)
    torch.testing.assert_close(x_hat[0, :, :8, :8], x_hat[1, :, :8, :8], atol=1e-6, rtol=0)
    assert not torch.allclose(x_hat[0], x_hat[1]), "its neighbours saw it"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("condition", [torch.zeros(2, 1, 16, 16), torch.full((2, 1, 32, 32), 0.5)])
def test_a_condition_that_is_not_a_mask_is_refused(name: str, small: dict[str, Any], condition: Tensor) -> None:
    with pytest.raises(ConfigError, match="mask"):
        make(name, small).restore(torch.zeros(2, 1, 32, 32), Rng(range(2)), condition)


@pytest.mark.parametrize("name", NAMES)
def test_a_factor_that_does_not_divide_the_image_is_refused_when_built(name: str, small: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="5"):
        make(name, small, degradations=[{"steps": [{"kind": "downsample", "factor": 5}]}])


def test_each_image_is_degraded_in_one_of_the_ways() -> None:
    fields = RestoringFields.model_validate({"degradations": [BOX, {"noise": {"kind": "gaussian", "std": 0.2}}]})
    batch = two_levels(64)
    lesson = fields.study(batch, Rng(range(64)))
    holes = lesson.missing.flatten(1).any(dim=1)
    assert 15 < int(holes.sum()) < 49
    assert torch.equal(lesson.clean, batch.images) and lesson.seen.shape == (64, 2, 32, 32)
    noisy = (lesson.seen[:, :1] - batch.images).flatten(1).std(dim=1)
    assert noisy[~holes].min() > 0.15
    again = fields.study(batch, Rng(range(64)))
    assert torch.equal(again.seen, lesson.seen)


@pytest.mark.slow
def test_a_draw_is_an_image_and_the_regression_is_their_mean(small: dict[str, Any]) -> None:
    """A hole in an image that is +0.5 or -0.5 as often, nothing of which is left to see: p(x | y) has two modes."""
    everything = {"steps": [{"kind": "rectangles", "boxes": [[0, 0, 1, 0.97]]}]}
    batch, trained = two_levels(16), {}
    for name in ("regression_unet", "conditional_ddpm", "conditional_flow"):
        method = make(name, small, degradations=[everything]).train()
        optimiser = torch.optim.Adam(method.parameters(), 0.003)
        for step in range(150):
            terms = method.loss(hide_edge(batch), "train", Rng.training(0, 16 * step, 16))
            optimiser.zero_grad()
            terms["total"].backward()
            optimiser.step()
        trained[name] = method
    missing = torch.zeros(16, 1, 32, 32)
    missing[..., :31] = 1
    worse = torch.zeros(16, 1, 32, 32)
    flat = trained["regression_unet"].restore(worse, Rng(range(16)), missing)[..., :28].mean(dim=(1, 2, 3))
    assert flat.abs().max() < 0.3
    for name in ("conditional_ddpm", "conditional_flow"):
        draws = trained[name].restore(worse, Rng(range(16)), missing, steps=20)[..., :28].mean(dim=(1, 2, 3))
        assert draws.abs().median() > 0.3 and draws.min() < -0.2 and draws.max() > 0.2, name


def hide_edge(batch: Batch) -> Batch:
    """Make the last column, which is always seen, say nothing."""
    images = batch.images.clone()
    images[..., 31:] = 0
    return Batch(images, batch.body, batch.ids)


def test_the_noise_level_lies_between_those_of_two_times(small: dict[str, Any]) -> None:
    method = make("conditional_ddpm", small)
    assert isinstance(method, ConditionalDdpm)
    gamma = method.draw_level(Rng(range(2000)), torch.zeros(2000, 1, 32, 32)).flatten()
    alpha_bar = method.process.alpha_bar
    assert float(gamma.min()) >= float(alpha_bar[-1]) and float(gamma.max()) <= 1
    assert not torch.isin(gamma, alpha_bar).any(), "levels are continuous"
    assert float(gamma.mean()) == pytest.approx(float(alpha_bar.mean()), abs=0.03)
