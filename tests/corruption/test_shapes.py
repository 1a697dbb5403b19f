"""Outlines: areas in closed form, places, borders, confinement."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from pipeline.corruption import ShapeConfig, draw_shape
from pipeline.nn.rng import Rng

ELLIPSE = {"ragged": (0, 0), "edge": (0.01, 0.01)}


@pytest.mark.parametrize("stretch", [1.0, 2.5])
def test_an_ellipse_has_its_area_whatever_its_turn(whole: Tensor, stretch: float) -> None:
    # Where it reaches the frame it is cut: those are left out.
    config = ShapeConfig(radius=(0.1, 0.1), stretch=stretch, **ELLIPSE)
    coverage, radius = draw_shape(whole, config, Rng(range(200)))
    inside = coverage[..., 0, :].amax((1, 2)) + coverage[..., -1, :].amax((1, 2)) == 0
    inside &= coverage[..., 0].amax((1, 2)) + coverage[..., -1].amax((1, 2)) == 0
    areas = coverage.sum(dim=(1, 2, 3))[inside]
    assert inside.sum() > 60 and torch.allclose(radius, torch.tensor(0.1))
    assert abs(areas / (math.pi * 6.4**2) - 1).max() < 0.03


def test_an_ellipsoid_has_its_volume() -> None:
    body = torch.ones(30, 1, 32, 32, 32, dtype=torch.bool)
    coverage, _ = draw_shape(body, ShapeConfig(radius=(0.2, 0.2), stretch=1.5, **ELLIPSE), Rng(range(30)))
    # the frame cuts most of them: the largest is whole
    assert abs(coverage.sum(dim=(1, 2, 3, 4)).max() / (4 / 3 * math.pi * (0.2 * 32) ** 3) - 1) < 0.05


def test_stretch_makes_it_longer_than_wide(whole: Tensor) -> None:
    def longest(stretch: float) -> Tensor:
        config = ShapeConfig(radius=(0.08, 0.08), stretch=stretch, **ELLIPSE)
        coverage = draw_shape(whole, config, Rng(range(200)))[0] > 0.5
        return coverage.any(dim=2).sum(dim=(1, 2)).maximum(coverage.any(dim=3).sum(dim=(1, 2)))

    assert longest(1.0).max() <= 11 + 1  # a diameter of 10.24 pixels
    assert longest(4.0).max() >= 17


def test_centres_are_spread_over_the_body_evenly(block: Tensor) -> None:
    config = ShapeConfig(radius=(0.02, 0.02), stretch=1, **ELLIPSE)
    coverage, _ = draw_shape(block, config, Rng(range(200)))
    line = torch.arange(64.0)
    total = coverage.sum(dim=(1, 2, 3))
    for axis in (2, 3):
        centre = (coverage.sum(dim=(1, axis)) * line).sum(dim=1) / total
        # uniform on 24..39: mean 31.5, standard deviation 4.6
        assert abs(centre.mean() - 31.5) < 1.0 and abs(centre.std() - 4.6) < 0.6
        assert centre.min() >= 23 and centre.max() <= 40


def test_nothing_leaves_the_body_and_an_empty_body_stays_empty(block: Tensor) -> None:
    block[7] = False
    coverage, _ = draw_shape(block, ShapeConfig(radius=(0.1, 0.3), ragged=(0.5, 1.0)), Rng(range(200)))
    assert coverage[~block].abs().max() == 0
    assert coverage[7].max() == 0
    assert coverage.min() >= 0 and coverage.max() == 1


def test_a_wider_edge_has_more_pixels_in_between(whole: Tensor) -> None:
    def between(edge: float) -> Tensor:
        config = ShapeConfig(radius=(0.15, 0.15), ragged=(0, 0), edge=(edge, edge))
        coverage, _ = draw_shape(whole, config, Rng(range(200)))
        return ((coverage > 0) & (coverage < 1)).float().mean()

    # a ring of width edge x radius round the outline: its area is proportional to the edge
    assert between(0.8) / between(0.4) == pytest.approx(2, rel=0.15)


def test_ragged_outlines_differ_from_the_ellipse_and_may_fall_apart(whole: Tensor) -> None:
    smooth = draw_shape(whole, ShapeConfig(radius=(0.15, 0.15), ragged=(0, 0)), Rng(range(200)))[0] > 0.5
    wild = draw_shape(whole, ShapeConfig(radius=(0.15, 0.15), ragged=(0.8, 0.8)), Rng(range(200)))[0] > 0.5

    def border(mask: Tensor) -> Tensor:
        return (mask.diff(dim=2).sum() + mask.diff(dim=3).sum()) / mask.sum().sqrt()

    assert border(wild) > 1.2 * border(smooth)


def test_a_radius_of_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="above 0"):
        ShapeConfig(radius=(0, 0.1))
