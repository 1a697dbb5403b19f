"""Cubes laid over a volume and blended: MONAI's result, no bit of which depends on the order."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference

from pipeline.detection.tiles import Blend, TileConfig, Tiling, tiled
from pipeline.errors import ConfigError, Rejected

SHAPE = (19, 16, 41)
EDGE = 16


@pytest.fixture
def image() -> torch.Tensor:
    """A volume of noise, odd along two axes."""
    return torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.fixture
def network() -> torch.nn.Module:
    """A network whose answer depends on where a voxel lies in its cube (zero padding): blending matters."""
    torch.manual_seed(0)
    layers = torch.nn.Conv3d(1, 3, 5, padding=2), torch.nn.Tanh(), torch.nn.Conv3d(3, 1, 5, padding=2)
    return torch.nn.Sequential(*layers).requires_grad_(False)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("blend", ["gaussian", "constant"])
def test_it_is_monais_sliding_window(image: torch.Tensor, network: torch.nn.Module, overlap: float, blend: str) -> None:
    config = TileConfig(overlap=overlap, blend=blend, at_once=3)
    ours = tiled(image, torch.ones(1, *SHAPE, dtype=torch.bool), EDGE, config, lambda x, b, s: network(x), True)
    one = torch.ones(EDGE)
    if blend == "gaussian":
        one = torch.exp(-0.5 * ((torch.arange(EDGE) - (EDGE - 1) / 2) / (0.125 * EDGE)) ** 2)
    weights = one[:, None, None] * one[:, None] * one
    theirs = sliding_window_inference(image[None], (EDGE,) * 3, 1, network, overlap, roi_weight_map=weights)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)


def test_the_order_of_the_cubes_moves_no_bit(image: torch.Tensor, network: torch.nn.Module) -> None:
    tiling = Tiling.of(SHAPE, EDGE, TileConfig(overlap=0.75))
    answers = [(start, network(image[tiling.window(start)][None])[0]) for start in tiling]
    assert len(answers) == 2 * 1 * 8

    def exact(order: list) -> torch.Tensor:
        blend = Blend(tiling, 1)
        for start, values in order:
            blend.add(start, values)
        return blend.result()

    def floating(order: list) -> torch.Tensor:
        sums = torch.zeros(1, *SHAPE)
        for start, values in order:
            sums[tiling.window(start)] += values * tiling.weight(start).float()
        return sums

    shuffled = [random.Random(seed).sample(answers, len(answers)) for seed in range(5)]
    assert all(torch.equal(exact(order), exact(answers)) for order in shuffled)
    assert not all(torch.equal(floating(order), floating(answers)) for order in shuffled)  # the test can fail
    torch.testing.assert_close(exact(answers), floating(answers), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("blend", ["gaussian", "constant"])
def test_the_weights_of_a_voxel_sum_to_one(blend: str) -> None:
    tiling = Tiling.of((50, 17, 33), 16, TileConfig(overlap=0.4, blend=blend))
    total = torch.zeros(50, 17, 33, dtype=torch.float64)
    for start in tiling:
        total[tiling.window(start)] += tiling.weight(start)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)


def test_cubes_without_body_are_not_computed(image: torch.Tensor) -> None:
    body = torch.zeros(1, *SHAPE, dtype=torch.bool)
    body[..., :8] = True
    asked: list[tuple[int, int, int]] = []

    def answer(x: torch.Tensor, bodies: torch.Tensor, starts: list[tuple[int, int, int]]) -> torch.Tensor:
        asked.extend(starts)
        return torch.full_like(x, 0.5)

    config = TileConfig(overlap=0.0)
    blended = tiled(image, body, EDGE, config, answer, keeps_image=True)
    assert asked == [(0, 0, 0), (3, 0, 0)]
    assert torch.all((blended - 0.5).abs()[..., :16] < 1e-6)
    torch.testing.assert_close(blended[..., 25:], image[..., 25:], rtol=0, atol=1e-6)
    own_map = tiled(image, body, EDGE, config, answer, keeps_image=False)
    assert torch.all(own_map[..., 25:] == 0) and torch.all(own_map[..., :16] > 0)


def test_values_that_cannot_be_summed_are_refused(image: torch.Tensor) -> None:
    body = torch.ones(1, *SHAPE, dtype=torch.bool)
    for value, error in ((float("nan"), Rejected), (float("-inf"), Rejected), (2e9, ConfigError)):
        with pytest.raises(error):
            tiled(image, body, EDGE, TileConfig(), lambda x, b, s, v=value: torch.full_like(x, v), True)
    with pytest.raises(ConfigError, match=r"\b15\b.*\b16\b"):
        Tiling.of((15, 16, 16), 16, TileConfig())


def test_an_answer_of_nothing_but_the_image_gives_the_image(image: torch.Tensor) -> None:
    body = torch.ones(1, *SHAPE, dtype=torch.bool)
    blended = tiled(image, body, EDGE, TileConfig(), lambda x, b, s: x, True)
    np.testing.assert_allclose(blended.numpy(), image.numpy(), rtol=0, atol=1e-6)
