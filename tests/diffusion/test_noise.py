"""Noise: unit variance, row independence, the scale that each kind promises, golden weights, a scalar reference."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.diffusion import noise as kinds
from pipeline.diffusion.noise import coarse, draw_noise, simplex
from pipeline.diffusion.simplex import _noise
from pipeline.nn.rng import Rng

SHAPES = [(1, 32, 32), (2, 24, 40), (1, 12, 12, 12)]


@pytest.mark.parametrize("kind", ["gaussian", "coarse", "simplex"])
@pytest.mark.parametrize("shape", SHAPES)
def test_mean_0_and_variance_1_at_every_pixel_on_average(kind: str, shape: tuple[int, ...]) -> None:
    rows = 600
    noise = draw_noise(kind, Rng(range(rows)), shape, grid=6)
    assert noise.shape == (rows, *shape) and noise.dtype == torch.float32
    # The rows are independent: the mean of a row statistic lies within 5 standard errors of its expectation.
    means, powers = noise.flatten(1).mean(dim=1), noise.flatten(1).square().mean(dim=1)
    assert abs(means.mean()) < 5 * means.std() / math.sqrt(rows)
    assert abs(powers.mean() - 1) < 5 * powers.std() / math.sqrt(rows)


@pytest.mark.parametrize("kind", ["gaussian", "coarse", "simplex"])
def test_a_row_depends_on_its_own_key_only(kind: str) -> None:
    whole = draw_noise(kind, Rng([5, 6, 7]), (1, 32, 32))
    assert_close(draw_noise(kind, Rng([7]), (1, 32, 32))[0], whole[2], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(whole[0], whole[1])


def test_kinds_differ_in_how_far_they_reach() -> None:
    reach = {}
    for kind in ("gaussian", "coarse", "simplex"):
        noise = draw_noise(kind, Rng(range(40)), (1, 64, 64))
        reach[kind] = (noise[..., 1:] * noise[..., :-1]).mean().item()  # correlation of neighbouring pixels
    assert abs(reach["gaussian"]) < 0.02
    # 64 pixels over 16 cells: neighbours are 1/4 cell apart; the tent's autocorrelation there is 1 - 1.5 h^2 + .75 h^3.
    assert abs(reach["coarse"] - (1 - 1.5 / 16 + 0.75 / 64)) < 0.03
    assert 0.5 < reach["simplex"] < 0.95


def test_interpolation_weights_by_hand() -> None:
    # Two cells over four pixels: pixels 0 and 2 lie on the knots, 1 and 3 half way (3 wraps to knot 0).
    weights = kinds._interpolation(4, 2, torch.tensor([0.0, 0.25]))
    assert weights[0].tolist() == [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.5, 0.5]]
    assert weights[1].tolist() == [[0.5, 0.5], [0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]  # rolled by a quarter = one pixel
    assert_close(kinds._interpolation(37, 5, torch.rand(3)).sum(dim=2), torch.ones(3, 37))


def test_coarse_noise_is_the_knots_interpolated_along_each_axis_in_order() -> None:
    rng = Rng([3])
    knots, offsets = rng.normal(1, 4, 4), rng.uniform(2)
    rows, columns = (kinds._interpolation(size, 4, offsets[:, axis]) for axis, size in enumerate((8, 12)))
    expected = 1.5 * torch.einsum("byi,bxj,bcij->bcyx", rows, columns, knots)
    assert_close(coarse(Rng([3]), (1, 8, 12), grid=4), expected)


@pytest.mark.parametrize("dims", [2, 3])
def test_simplex_noise_equals_a_scalar_reference(dims: int) -> None:
    rng = Rng([11])
    gradients, order = rng.normal(256, dims), rng.uniform(256).argsort(dim=-1)
    points = rng.uniform(20, dims, low=0.0, high=50.0)
    expected = [_reference(point.tolist(), gradients[0], order[0]) for point in points[0]]
    assert_close(_noise(points, gradients, order)[0], torch.tensor(expected), rtol=1e-3, atol=1e-5)


def _reference(point: list[float], gradients: Tensor, order: Tensor) -> float:
    """Sum over every lattice corner in reach, in plain Python: no choice of simplex, only distances and falloff."""
    dims = len(point)
    skew, unskew = (math.sqrt(dims + 1) - 1) / dims, (1 - 1 / math.sqrt(dims + 1)) / dims
    base = [math.floor(p + skew * sum(point)) for p in point]
    value = 0.0
    for step in itertools.product((-1, 0, 1, 2), repeat=dims):
        corner = [b + s for b, s in zip(base, step, strict=True)]
        offset = [p - (c - unskew * sum(corner)) for p, c in zip(point, corner, strict=True)]
        falloff = max(0.0, 0.5 - sum(d * d for d in offset)) ** 4
        index = 0
        for c in corner:
            index = int(order[(index + c) % 256])
        value += falloff * sum(float(g) * d for g, d in zip(gradients[index], offset, strict=True))
    return value


def test_finer_octaves_than_two_pixels_are_left_out() -> None:
    # 16 pixels, first period 4: octaves of 4 and 2 pixels remain, so asking for 2 or for 6 is the same.
    assert torch.equal(simplex(Rng([1]), (1, 16, 16), octaves=2), simplex(Rng([1]), (1, 16, 16), octaves=6))
