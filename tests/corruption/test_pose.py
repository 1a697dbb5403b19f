"""Pose: image and body move together, each number does what it says, and the defaults nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.corruption import PoseConfig, pose
from pipeline.nn.rng import Rng

ROWS = 100


@pytest.fixture
def spot() -> Tensor:
    """A blob right of the middle of 64 px, in images of -1: at 0.5 of the way to the frame, on the horizontal axis."""
    places = (torch.arange(64) + 0.5) / 32 - 1
    y, x = torch.meshgrid(places, places, indexing="ij")
    return (2 * torch.exp(-((x - 0.5) ** 2 + y**2) / 0.02) - 1).expand(ROWS, 1, 64, 64)


def centre(images: Tensor) -> Tensor:
    """Return the centre of mass (x, y) of each image, -1..1."""
    weight = (images[:, 0] + 1).clamp_min(0)
    places = (torch.arange(64) + 0.5) / 32 - 1
    total = weight.sum(dim=(1, 2))
    return (
        torch.stack([(weight.sum(dim=1) * places).sum(dim=1), (weight.sum(dim=2) * places).sum(dim=1)], 1)
        / total[:, None]
    )


def moved(images: Tensor, **config: float) -> Tensor:
    return pose(images, images > 0, PoseConfig(**config), Rng(range(len(images))))[0]


def test_the_default_changes_nothing(spot: Tensor) -> None:
    images, body = pose(spot, spot > 0, PoseConfig(), Rng(range(ROWS)))
    assert torch.equal(images, spot) and torch.equal(body, spot > 0)


def test_mirroring_turns_about_half_of_them(spot: Tensor) -> None:
    images, body = pose(spot, spot > 0, PoseConfig(mirror=True), Rng(range(ROWS)))
    mirrored = centre(images)[:, 0] < 0
    assert 30 < mirrored.sum() < 70  # binomial: standard deviation 5
    assert torch.equal(images[mirrored], spot.flip(-1)[mirrored]) and torch.equal(images[~mirrored], spot[~mirrored])
    assert torch.equal(body, images > 0)


def test_a_turn_keeps_the_distance_from_the_middle(spot: Tensor) -> None:
    places = centre(moved(spot, rotate_degrees=40))
    assert_close(places.norm(dim=1), torch.full((ROWS,), 0.5), atol=0.01, rtol=0)
    angles = torch.atan2(places[:, 1], places[:, 0]) * 180 / math.pi
    assert angles.abs().max() < 41 and abs(angles.mean()) < 7 and abs(angles.std() - 40 / 3**0.5) < 5


def test_scale_is_a_factor_about_the_middle(spot: Tensor) -> None:
    places = centre(moved(spot, scale=0.2))
    assert places[:, 1].abs().max() < 0.01
    assert places[:, 0].min() > 0.39 and places[:, 0].max() < 0.61 and abs(places[:, 0].std() - 0.1 / 3**0.5) < 0.01


def test_shift_is_a_fraction_of_the_edge(spot: Tensor) -> None:
    away = centre(moved(spot, shift=0.1)) - centre(spot)
    assert 0.17 < away.abs().max() < 0.21  # 0.1 of an edge that is 2 long
    assert (away.std(dim=0) - 0.2 / 3**0.5).abs().max() < 0.02


def test_a_warp_bends_smoothly(spot: Tensor) -> None:
    ramp = torch.linspace(-1, 1, 64).expand(ROWS, 1, 64, 64)
    bent = moved(ramp, warp=0.05)[..., 8:-8, 8:-8] - ramp[..., 8:-8, 8:-8]
    assert 0.03 < bent.std() < 0.1  # 2 x 0.05 at most, uniform between 0 and that: 0.058
    assert bent.diff(dim=-2).std() < 0.15 * bent.std()


def test_volumes_turn_in_their_plane_and_keep_their_slices(spot: Tensor) -> None:
    volume = torch.stack([spot * 0 - 1, spot, spot * 0 - 1], dim=2)[:8]
    images, body = pose(volume, volume > 0, PoseConfig(rotate_degrees=30), Rng(range(8)))
    assert_close(images[:, :, 0], volume[:, :, 0])
    assert_close(images[:, :, 1], pose(spot[:8], spot[:8] > 0, PoseConfig(rotate_degrees=30), Rng(range(8)))[0])
    assert body.shape == volume.shape and not body[:, :, 0].any()


def test_image_and_body_move_together_and_a_row_depends_on_itself_alone(spot: Tensor) -> None:
    config = PoseConfig(mirror=True, rotate_degrees=20, scale=0.1, shift=0.05, warp=0.02)
    images, body = pose(spot, spot > 0, config, Rng(range(ROWS)))
    assert (body != (images > 0)).float().mean() < 0.005  # interpolated on either side of the edge
    few, fewer = pose(spot[5:7], spot[5:7] > 0, config, Rng([5, 6]))
    assert_close(few, images[5:7])
    assert torch.equal(fewer, body[5:7])
