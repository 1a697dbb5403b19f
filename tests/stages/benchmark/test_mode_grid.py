"""The grid of 25 Gaussians: modes counted by hand, and GANs of the registry that learn points."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from pipeline.methods import METHODS
from pipeline.stages.benchmark.mode_grid import GANS, STD, count_modes, draw_grid, grid_means, measure_modes


def test_points_of_the_grid_find_every_mode_as_often_as_a_gaussian_allows() -> None:
    modes, share = count_modes(draw_grid(25 * 400, 3))
    assert modes == 25
    # In two dimensions a point lies within three standard deviations with probability 1 - exp(-9/2).
    assert share == pytest.approx(1 - math.exp(-4.5), abs=0.005)


def test_a_mode_needs_a_quarter_of_its_share() -> None:
    means = grid_means()
    first, second = means[:1].expand(2476, 2), means[1:2]  # of 2500 points a mode's share is 100
    assert count_modes(torch.cat([first, second.expand(24, 2)])) == (1, 1.0)
    assert count_modes(torch.cat([first[:2475], second.expand(25, 2)])) == (2, 1.0)


def test_points_between_modes_are_of_no_quality() -> None:
    assert count_modes(grid_means() + 3.1 * STD * torch.tensor([1.0, 0.0])) == (0, 0.0)
    assert count_modes(grid_means() + 2.9 * STD * torch.tensor([1.0, 0.0])) == (25, 1.0)


def test_every_gan_trains_on_points_and_the_rows_begin_with_the_real_grid_and_one_gaussian() -> None:
    rows = measure_modes(640, [0])
    assert [row.row for row in rows] == ["real points", "one Gaussian", *GANS]
    assert {name.partition(",")[0] for name in GANS} <= set(METHODS)
    assert rows[0].modes == 25 and rows[0].high_quality > 0.98
    # One Gaussian of the same spread puts few points near a mean, about 25 discs of radius 0.3 by its density there.
    assert rows[1].modes == 0 and rows[1].high_quality < 0.1
    assert all(row.points == 640 and 0 <= row.high_quality <= 1 for row in rows[2:])


def test_a_seed_repeats() -> None:
    first, again = (measure_modes(320, [1], ["wgan"])[-1].high_quality for _ in range(2))
    assert first == again
    state = torch.get_rng_state()
    measure_modes(64, [1], ["dcgan"])
    assert_close(torch.get_rng_state(), state)


@pytest.mark.slow
def test_a_penalised_critic_puts_many_samples_near_several_modes() -> None:
    row = measure_modes(700_000, [0], ["wgan_gp"])[-1]
    # Measured: 10 modes and 0.26; one Gaussian has no mode and 0.07, and a collapsed generator a single mode.
    assert row.modes >= 5 and row.high_quality > 0.15
