"""Textures of chest and ultrasound: each against what its name promises, on images whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.corruption import Consolidation, Effusion, Hypoechoic, LesionConfig, Nodule, Opacity, paint
from pipeline.corruption.canvas import Canvas
from pipeline.corruption.chest_textures import brightened
from pipeline.nn.rng import Rng

COUNT = 60


@pytest.fixture
def ribbed() -> tuple[Tensor, Tensor]:
    """Dark lungs with brighter ribs across them, between bright walls, and the mask of the lungs."""
    images = torch.full((COUNT, 1, 96, 96), 0.6)
    lungs = torch.zeros(images.shape, dtype=torch.bool)
    lungs[..., 15:75, 12:40] = lungs[..., 15:75, 56:84] = True
    ribs = (torch.arange(96) % 12 < 4)[:, None].expand(96, 96)
    return torch.where(lungs, torch.where(ribs, -0.2, -0.6), images), lungs


def _painted(images: Tensor, region: Tensor, texture: object, **fields: object) -> tuple[Tensor, Tensor]:
    config = LesionConfig(healthy=0, most=1, textures=(texture,), visible=0.01, **fields)
    painted = paint(images, region, config, Rng(range(len(images))))
    return painted.images, painted.mask


@pytest.mark.parametrize("texture", [Opacity(), Nodule(), Consolidation(bronchi=(0, 0)), Effusion()])
def test_chest_findings_brighten_up_to_soft_tissue(texture: object, ribbed: tuple[Tensor, Tensor]) -> None:
    images, lungs = ribbed
    painted, mask = _painted(images, lungs, texture)
    assert mask.flatten(1).any(dim=1).float().mean() > 0.9
    assert (painted - images)[mask].mean() > 0.05
    assert painted.max() <= 0.6 + 1e-5 and torch.equal(painted[~lungs], images[~lungs])


def test_opacities_keep_ribs_and_consolidations_wipe_them(ribbed: tuple[Tensor, Tensor]) -> None:
    """Contrast of the ribs under the lesion as a share of that before."""
    images, lungs = ribbed
    rib = images == images[lungs].max()
    left = []
    for texture in (Opacity(density=(0.4, 0.4), uneven=(0, 0)), Consolidation(bronchi=(0, 0), uneven=(0, 0))):
        painted, mask = _painted(images, lungs, texture)
        left.append(((painted[mask & rib].mean() - painted[mask & ~rib].mean()) / 0.4).item())
    assert left[0] > 0.5 and left[1] < 0.45 and left[0] > left[1] + 0.2


def test_brightening_goes_a_share_of_the_way_to_the_tissue() -> None:
    x = torch.tensor([-0.5, 0.0, 0.5, 0.5, 0.5, 0.9]).reshape(1, 1, 1, 6)
    tissue = x.quantile(0.8)
    moved = brightened(x, torch.full_like(x, 0.5), x > -1)
    torch.testing.assert_close(moved, torch.where(x < tissue, x + 0.5 * (tissue - x), x))


def test_nodules_are_small_round_and_softest_at_their_edge(ribbed: tuple[Tensor, Tensor]) -> None:
    flat = torch.full_like(ribbed[0], -0.5)
    flat[..., :40, :] = 0.5  # soft tissue
    region = torch.ones_like(ribbed[1])
    painted, mask = _painted(flat, region, Nodule())
    area = mask.sum(dim=(1, 2, 3)).float() / 96**2
    assert area.max() < 0.02
    rows, columns = (mask.any(dim=axis).sum(dim=-1).flatten().float() for axis in (3, 2))
    some = (rows > 2) & (columns > 2)  # on soft tissue they cannot be seen
    assert some.sum() > 20 and (rows[some] / columns[some]).log().abs().quantile(0.8) < 0.5
    middle, edge = painted[mask].max(), painted[mask & (painted < 0)].mean()
    assert middle > edge + 0.3


def test_effusions_fill_the_base_of_one_lung_and_rise_to_the_wall(ribbed: tuple[Tensor, Tensor]) -> None:
    images, lungs = ribbed
    _, mask = _painted(images, lungs, Effusion(level=(0.3, 0.3), rise=(0.2, 0.2)))
    for one in mask[:, 0]:
        left, right = one[:, :48], one[:, 48:]
        assert left.any() != right.any()
        side = left if left.any() else right.flip(-1)  # the wall is at column 12 now
        heights = side.sum(dim=0)[14:38]
        assert side[70, 16:36].all() and not side[:30].any()
        assert heights[0] > heights[-1] + 6 and (heights.diff() <= 1).all()


def test_hypoechoic_masses_are_darker_and_their_trail_is_not_part_of_them() -> None:
    """A mass in the middle: the mask is the mass, the trail lies below it, darker or brighter."""
    x = -0.2 + 0.15 * Rng(range(40)).normal(1, 64, 64)
    body, core = torch.ones(40, 1, 64, 64, dtype=torch.bool), torch.zeros(40, 1, 64, 64)
    core[..., 20:30, 25:40] = 1
    texture = Hypoechoic(contrast=(0.5, 0.5), behind=(0.4, 0.4), reach=(3, 3))
    canvas = Canvas(x, body, core, torch.full((40,), 0.1), x.roll(1, 0))
    coverage = texture.cover(canvas, Rng(range(40)))
    assert torch.equal(coverage >= 0.5, core >= 0.5) and coverage[..., :18, :].max() == 0
    assert coverage[..., 31:34, 28:37].min() > 0.2
    made = Canvas(x, body, coverage, canvas.radius, canvas.others, None, core)
    change = x.lerp(texture.content(made, Rng(range(40))), coverage) - x
    assert abs(change[core > 0].mean() + 0.4) < 0.06  # half of the mean brightness above -1
    behind = change[..., 31:34, 28:37].mean(dim=(1, 2, 3))
    assert (behind.abs() > 0.08).all() and 8 < (behind < 0).sum() < 32


def test_speckle_remains_in_a_hypoechoic_mass() -> None:
    x = 0.15 * Rng(range(40)).normal(1, 64, 64)
    body = torch.ones(40, 1, 64, 64, dtype=torch.bool)
    painted, mask = _painted(x, body, Hypoechoic(speckle=(1, 1), contrast=(0.3, 0.3), behind=(0, 0)))
    assert 0.5 < painted[mask].std() / x[mask].std() < 1.2
