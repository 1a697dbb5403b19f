"""Painted lesions: where the image may change, what the mask says, how many, and that rows are independent."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.testing import assert_close

from pipeline.corruption import Cystic, Displaced, Foreign, LesionConfig, ShapeConfig, Smoothed, Tinted, fade, paint
from pipeline.nn.rng import Rng

EVERY = (Tinted(), Cystic(), Smoothed(), Displaced())


@pytest.fixture
def images() -> Tensor:
    return (0.3 * Rng(range(200)).normal(1, 64, 64)).clamp(-1, 1)


def test_the_image_changes_under_the_coverage_only_and_stays_in_range(images: Tensor, block: Tensor) -> None:
    painted = paint(images, block, LesionConfig(textures=(*EVERY, Foreign())), Rng(range(200)))
    assert torch.equal(painted.images[painted.coverage == 0], images[painted.coverage == 0])
    assert painted.images.min() >= -1 and painted.images.max() <= 1
    assert painted.coverage[~block].max() == 0
    assert not (painted.mask & (painted.coverage < 0.5)).any()
    assert (painted.images != images).any(dim=1, keepdim=True)[painted.mask].float().mean() > 0.9


def test_the_mask_of_a_strong_plain_lesion_is_where_half_of_its_effect_is(whole: Tensor) -> None:
    tint = Tinted(contrast=(0.5, 0.5), brighter=1, rough=(0, 0), wipe=(0, 0))
    config = LesionConfig(most=1, healthy=0, textures=(tint,), visible=0)
    painted = paint(torch.zeros(200, 1, 64, 64), whole, config, Rng(range(200)))
    assert torch.equal(painted.mask, painted.coverage >= 0.5)
    assert_close(painted.images, 0.5 * painted.coverage)


def test_invisible_changes_are_not_in_the_mask(whole: Tensor) -> None:
    flat = torch.full((200, 1, 64, 64), 0.3)
    for texture in (Displaced(), Smoothed(), Tinted(contrast=(0.001, 0.001))):
        painted = paint(flat, whole, LesionConfig(textures=(texture,)), Rng(range(200)))
        assert painted.coverage.max() == 1 and not painted.mask.any()
    bright = paint(flat + 0.7, whole, LesionConfig(textures=(Tinted(brighter=1, wipe=(0, 0)),)), Rng(range(200)))
    assert bright.mask.float().mean() < 0.01  # at the top of the range nothing can be made brighter


def test_the_share_of_healthy_images_and_the_number_of_lesions(whole: Tensor) -> None:
    shape = ShapeConfig(radius=(0.02, 0.02), ragged=(0, 0))
    tint = Tinted(contrast=(0.5, 0.5))
    config = LesionConfig(healthy=0.3, most=3, shape=shape, textures=(tint,))
    painted = paint(torch.zeros(200, 1, 64, 64), whole, config, Rng(range(200)))
    amounts = painted.mask.sum(dim=(1, 2, 3)).float()
    # binomial: standard error 0.032; a lesion alone has about 5 pixels, three 15 where they do not overlap
    assert abs((amounts == 0).float().mean() - 0.3) < 0.11
    one = paint(torch.zeros(200, 1, 64, 64), whole, config.model_copy(update={"most": 1}), Rng(range(200)))
    assert amounts.sum() / one.mask.sum() == pytest.approx(2, rel=0.12)  # (1 + 2 + 3) / 3


def test_textures_are_drawn_by_weight(whole: Tensor) -> None:
    kinds = (Tinted(weight=3, brighter=1, contrast=(0.5, 0.5)), Tinted(weight=1, brighter=0, contrast=(0.5, 0.5)))
    config = LesionConfig(healthy=0, most=1, textures=kinds)
    painted = paint(torch.zeros(200, 1, 64, 64), whole, config, Rng(range(200)))
    brighter = (painted.images.flatten(1).sum(dim=1) > 0).float().mean()
    assert abs(brighter - 0.75) < 0.12  # standard error 0.031


def test_a_row_depends_on_itself_alone_and_the_stream_is_left_where_it_was(images: Tensor, whole: Tensor) -> None:
    config = LesionConfig(textures=EVERY)
    rng, untouched = Rng(range(200)), Rng(range(200))
    painted = paint(images, whole, config, rng)
    assert torch.equal(rng.uniform(3), untouched.uniform(3))
    order = [17, 3, 150]
    few = paint(images[order], whole[order], config, Rng(order))
    assert_close(few.images, painted.images[order])
    assert torch.equal(few.mask, painted.mask[order])


def test_only_a_foreign_patch_looks_at_its_neighbour(images: Tensor, whole: Tensor) -> None:
    config = LesionConfig(healthy=0, textures=(Foreign(),))
    here, others = images[:2], torch.stack([images[0], images[5]])
    first, second = (paint(x, whole[:2], config, Rng([0, 1])).images[0] for x in (here, others))
    assert not torch.equal(first, second)
    alone = paint(images[:1], whole[:1], config, Rng([0]))
    assert torch.isfinite(alone.images).all() and alone.mask.any()


def test_a_low_precision_around_it_changes_nothing(images: Tensor, whole: Tensor) -> None:
    config = LesionConfig(textures=(*EVERY, Foreign()))
    expected = paint(images[:20], whole[:20], config, Rng(range(20)))
    with torch.autocast("cpu", torch.bfloat16):
        painted = paint(images[:20], whole[:20], config, Rng(range(20)))
    assert torch.equal(painted.images, expected.images)


def test_a_volume_gets_lesions_that_run_through_its_slices() -> None:
    body = torch.ones(4, 1, 24, 24, 24, dtype=torch.bool)
    config = LesionConfig(healthy=0, shape=ShapeConfig(radius=(0.15, 0.2)), textures=(*EVERY, Foreign()))
    images = 0.3 * Rng(range(4)).normal(1, 24, 24, 24)
    painted = paint(images, body, config, Rng(range(4)))
    slices = painted.mask.flatten(3).any(dim=3).sum(dim=(1, 2))
    assert (slices >= 4).all() and (slices < 24).any()
    assert torch.equal(painted.images[painted.coverage == 0], images[painted.coverage == 0])


def test_no_body_no_lesion() -> None:
    painted = paint(
        torch.zeros(3, 1, 32, 32), torch.zeros(3, 1, 32, 32, dtype=torch.bool), LesionConfig(), Rng([1, 2, 3])
    )
    assert not painted.mask.any() and painted.images.abs().max() == 0


@pytest.mark.parametrize(
    "values", [{"textures": ()}, {"most": 0}, {"healthy": 1.0}, {"textures": [{"kind": "invisible"}]}]
)
def test_a_generator_that_cannot_paint_is_refused(values: dict) -> None:
    with pytest.raises(ValidationError):
        LesionConfig.model_validate(values)


@pytest.mark.slow
def test_painting_costs_little_beside_a_training_step() -> None:
    """About 7 % on a quiet core; others on the same core can double the share."""
    from pipeline.methods import METHODS
    from pipeline.types import Batch

    method = METHODS["dae"]().build(128)
    x, body = torch.zeros(8, 1, 128, 128), torch.ones(8, 1, 128, 128, dtype=torch.bool)
    batch, config = Batch(x, body, tuple(map(str, range(8)))), LesionConfig(textures=(*EVERY, Foreign()))

    def seconds(what: Callable[[], object]) -> float:
        began = time.process_time()
        what()
        return time.process_time() - began

    painting = min(seconds(lambda: paint(x, body, config, Rng(range(8)))) for _ in range(10))
    step = min(seconds(lambda: method.loss(batch, "train", Rng(range(8)))["total"].backward()) for _ in range(3))
    assert painting < 0.3 * step


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_faded_lesion_has_a_share_of_its_strength_and_is_lesion_only_where_it_is_visible(share: float) -> None:
    images, body = torch.zeros(4, 1, 32, 32), torch.ones(4, 1, 32, 32, dtype=torch.bool)
    config = LesionConfig(healthy=0)
    painted = paint(images, body, config, Rng(range(4)))
    faded = fade(painted, images, torch.full((4, 1, 1, 1), share), config)
    assert_close(faded.images, share * painted.images)
    assert not (faded.mask & ~painted.mask).any()
    assert torch.equal(faded.mask, painted.mask) if share == 1 else faded.mask.sum() < painted.mask.sum()
    assert faded.mask.any() == (share > 0)
