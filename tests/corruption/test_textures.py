"""Textures that fill a lesion, each kind against a closed form or an independent implementation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.testing import assert_close

from pipeline.corruption import Cystic, Disentangled, Displaced, Foreign, Smoothed, Tinted
from pipeline.corruption.canvas import Canvas
from pipeline.nn.rng import Rng


@pytest.fixture
def canvas() -> Canvas:
    """Eight images of noise, a full body, a square lesion, and the next image as the other one."""
    images = 0.2 * Rng(range(8)).normal(1, 32, 32)
    coverage = torch.zeros(8, 1, 32, 32)
    coverage[..., 10:20, 10:20] = 1
    return Canvas(
        images, torch.ones(8, 1, 32, 32, dtype=torch.bool), coverage, torch.full((8,), 0.16), images.roll(1, 0)
    )


def keys(canvas: Canvas) -> Rng:
    return Rng(range(len(canvas.images)))


def test_a_plain_tint_adds_its_contrast_with_its_sign(canvas: Canvas) -> None:
    texture = Tinted(contrast=(0.3, 0.3), brighter=1, rough=(0, 0), wipe=(0, 0))
    assert_close(texture.content(canvas, keys(canvas)), canvas.images + 0.3)
    darker = texture.model_copy(update={"brighter": 0.0})
    assert_close(darker.content(canvas, keys(canvas)), canvas.images - 0.3)


def test_the_share_of_brighter_ones_is_as_stated() -> None:
    flat = torch.zeros(2000, 1, 4, 4)
    canvas = Canvas(flat, flat == 0, flat + 1, torch.full((2000,), 0.1), flat)
    content = Tinted(brighter=0.7, rough=(0, 0)).content(canvas, Rng(range(2000)))
    # binomial: standard error 0.010
    assert abs((content.mean(dim=(1, 2, 3)) > 0).float().mean() - 0.7) < 0.04


def test_wiping_leaves_the_local_mean_and_the_texture_has_the_stated_strength(canvas: Canvas) -> None:
    wiped = Tinted(contrast=(0.4, 0.4), brighter=1, rough=(0, 0), wipe=(1, 1)).content(canvas, keys(canvas))
    here = (slice(None), slice(None), slice(10, 20), slice(10, 20))
    mean = canvas.images[here].mean(dim=(2, 3), keepdim=True)
    assert_close(wiped[here], (mean + 0.4).expand(8, 1, 10, 10))
    many = Canvas(*[torch.zeros(400, 1, 32, 32)] * 3, torch.full((400,), 0.1), torch.zeros(400, 1, 32, 32))
    rough = Tinted(contrast=(0.4, 0.4), brighter=1, rough=(0.5, 0.5)).content(many, Rng(range(400)))
    assert abs(rough.std() - 0.2) < 0.01 and abs(rough.mean() - 0.4) < 0.01


def test_cavities_have_their_share_and_are_as_much_darker_as_the_rest_is_brighter() -> None:
    flat = torch.zeros(400, 1, 32, 32)
    many = Canvas(flat, flat == 0, flat + 1, torch.full((400,), 0.2), flat)
    content = Cystic(contrast=(0.3, 0.3), depth=(0.5, 0.5), share=(0.4, 0.4)).content(many, Rng(range(400)))
    assert content.max() <= 0.3 and content.min() >= -0.5
    dark, bright = (content < -0.4).float().mean(), (content > 0.2).float().mean()
    # Some pixels lie on the soft border between the two; fields of 400 images have a standard error of 0.01.
    assert abs(dark / (dark + bright) - 0.4) < 0.04 and dark + bright > 0.8


def test_a_foreign_patch_is_the_other_image_mixed_in(canvas: Canvas) -> None:
    quarter = Foreign(mix=(0.25, 0.25), shift=0).content(canvas, keys(canvas))
    assert_close(quarter, 0.75 * canvas.images + 0.25 * canvas.others)
    moved = Foreign(mix=(1, 1), shift=0.2).content(canvas, keys(canvas))
    assert_close(moved.flatten(1).sort().values, canvas.others.flatten(1).sort().values)  # rolled: the same values
    assert not torch.equal(moved, canvas.others)


def test_smoothing_is_a_gaussian_that_counts_the_body_only(canvas: Canvas) -> None:
    body = canvas.body.clone()
    body[..., :8] = False
    images = torch.where(body, canvas.images, -1.0)
    masked = Canvas(images, body, canvas.coverage, canvas.radius, canvas.others)
    smoothed = Smoothed(length=(0.05, 0.05)).content(masked, keys(canvas))[3, 0]
    inside = body[3, 0].double().numpy()
    amount = gaussian_filter(inside, 1.6, mode="constant", truncate=12)
    expected = gaussian_filter(images[3, 0].double().numpy() * inside, 1.6, mode="constant", truncate=12) / amount
    assert_close(smoothed[:, 8:].double(), torch.from_numpy(expected)[:, 8:], atol=1e-5, rtol=1e-4)


def test_displacement_moves_a_ramp_by_its_slope(canvas: Canvas) -> None:
    # On a linear ramp f(p) = g . p the image read at p - c v is f(p) - c (g . v), bilinear interpolation being exact.
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    texture = Displaced(shift=(0.5, 0.5))
    coverage = canvas.coverage * torch.linspace(0.2, 1, 8)[:, None, None, None]
    shifts = []
    for ramp in (rows, columns):
        image = (ramp / 100).expand(8, 1, 32, 32)
        made = Canvas(image, canvas.body, coverage, canvas.radius, image)
        change = (texture.content(made, keys(canvas)) - image) * 100
        assert change[coverage == 0].abs().max() < 1e-4
        within = change[..., 12:18, 12:18] / coverage[..., 12:18, 12:18]
        assert_close(within, within[..., :1, :1].expand_as(within), atol=2e-3, rtol=1e-3)
        shifts.append(within[:, 0, 0, 0])
    assert_close(torch.stack(shifts).norm(dim=0), torch.full((8,), 0.5 * 0.16 * 32), atol=5e-3, rtol=1e-3)


@pytest.mark.parametrize("texture", [Tinted(), Foreign(), Smoothed(), Displaced()], ids=lambda t: t.kind)
@pytest.mark.parametrize("spatial", [(16, 16), (12, 12, 12)])
def test_every_kind_works_in_both_dimensions_with_channels(texture: Tinted, spatial: tuple[int, ...]) -> None:
    images = Rng([1, 2, 3]).normal(2, *spatial)
    some = torch.ones(3, 1, *spatial)
    canvas = Canvas(images, some > 0, 0.5 * some, torch.full((3,), 0.2), images.roll(1, 0))
    content: Tensor = texture.content(canvas, Rng([4, 5, 6]))
    assert content.shape == images.shape and torch.isfinite(content).all()
    row = Canvas(images[1:2], some[1:2] > 0, 0.5 * some[1:2], torch.full((1,), 0.2), images[:1])
    assert_close(texture.content(row, Rng([5]))[0], content[1])


def test_a_disentangled_lesion_without_texture_and_bias_changes_nothing(canvas: Canvas) -> None:
    texture = Disentangled(mix=(0, 0), bias=(0, 0))
    assert_close(texture.content(canvas, keys(canvas)), canvas.images)


def test_its_foreign_texture_has_the_other_images_detail_and_not_its_brightness(canvas: Canvas) -> None:
    texture = Disentangled(mix=(1, 1), bias=(0, 0), shift=0.0)
    content = texture.content(canvas, keys(canvas))
    brighter = replace(canvas, others=canvas.others + 0.7)
    assert_close(content, texture.content(brighter, keys(canvas)), atol=1e-5, rtol=0)
    smooth, others = (texture._smooth(x, canvas.body) for x in (canvas.images, canvas.others))
    assert_close(content, smooth + canvas.others - others)


def test_each_tissue_brightens_by_its_own_amount(canvas: Canvas) -> None:
    """Two flat tissues and narrow classes: one change in each half, apart from each other in most images."""
    count = 200
    halves = torch.full((count, 1, 16, 16), -0.5)
    halves[..., 8:] = 0.5
    two = Canvas(halves, halves < 1, halves * 0 + 1, torch.full((count,), 0.2), halves)
    texture = Disentangled(mix=(0, 0), detail=0.001, tissues=8, softness=(0.01, 0.01), bias=(0.3, 0.3), brighter=1)
    left, right = ((texture.content(two, Rng(range(count))) - halves)[..., part] for part in (slice(8), slice(8, 16)))
    assert_close(left.flatten(1).std(dim=1), torch.zeros(count), atol=1e-5, rtol=0)
    assert (left >= 0).all() and (right >= 0).all()
    assert ((left - right)[..., 0, 0].abs() > 0.02).float().mean() > 0.8
    # the mean of n half-normal changes of one class: 0.3 sqrt(2 / pi), whatever n
    assert abs(left.mean() - 0.3 * (2 / torch.pi) ** 0.5) < 0.03
