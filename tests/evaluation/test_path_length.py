"""Perceptual path length: the closed form of a linear decoder, a decoder that jumps, and what has no path."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.errors import ConfigError
from pipeline.evaluation.path_length import measure_path_length, path_length
from pipeline.methods import METHODS
from pipeline.methods.base import Method, MethodConfig
from pipeline.nn.rng import Rng


def squared(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().flatten(1).sum(dim=1)


def test_a_linear_generator_has_the_squared_length_of_its_line() -> None:
    a, b, matrix = Rng(range(5)).normal(3), Rng(range(5, 10)).normal(3), Rng([11]).normal(3, 7)[0]
    length = path_length(lambda w: w @ matrix, squared, (a, b), Rng(range(5)).uniform())
    assert_close(length, ((b - a) @ matrix).square().sum(dim=1), rtol=1e-3, atol=1e-3)


def test_a_jump_is_longer_than_an_even_way_between_the_same_images() -> None:
    a, b, share = torch.zeros(200, 1), torch.ones(200, 1), torch.linspace(0, 0.989, 200)
    even = path_length(lambda w: w, squared, (a, b), share)
    jump = path_length(lambda w: (w > 0.5).float(), squared, (a, b), share)
    assert_close(even, torch.ones(200), rtol=1e-3, atol=1e-3)
    assert jump.mean() > 50 * even.mean()  # one step in 100 contains the whole way: 0.01 / 0.01^2 = 100


class Doubling(Method):
    """A codec whose code is half of the image."""

    def to_code(self, x: Tensor) -> Tensor:
        return x / 2

    def from_code(self, z: Tensor) -> Tensor:
        return 2 * z


def test_paths_lead_from_each_image_to_the_next_one_and_from_the_last_to_the_first() -> None:
    method, x = Doubling(MethodConfig(name="doubling"), 4, 1, 2), Rng(range(5)).normal(1, 4, 4)
    length = measure_path_length(method, x, batch=2, distance=squared)
    assert_close(length, squared(x, x.roll(-1, 0)), rtol=1e-3, atol=1e-3)


def test_what_has_no_code_and_a_single_image_are_refused() -> None:
    method = METHODS["dae"](widths=(8, 8, 8, 16, 16, 8)).build(32)
    with pytest.raises(ConfigError, match="dae and 3"):
        measure_path_length(method, torch.zeros(3, 1, 32, 32))
    with pytest.raises(ConfigError, match="doubling and 1"):
        measure_path_length(Doubling(MethodConfig(name="doubling"), 4, 1, 2), torch.zeros(1, 1, 4, 4))
