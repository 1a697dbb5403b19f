"""Target and condition travel from the items to the loss: what paired and conditional tasks learn from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.errors import ConfigError, Rejected
from pipeline.methods.base import Method, MethodConfig, Phase
from pipeline.nn.rng import Rng
from pipeline.training import TrainingConfig, TrainState, train
from pipeline.training.order import collate
from pipeline.types import Batch


class PairedConfig(MethodConfig):
    """Configuration of the method below."""

    name: Literal["paired"] = "paired"

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> Paired:
        return Paired(self, image_size, channels, spatial_dims)


class Paired(Method):
    """Learn target = a * image + b * condition."""

    def __init__(self, config: PairedConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.a, self.b = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        self.phases = (Phase("train", lr=0.1),)

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        assert batch.target is not None and batch.condition is not None
        answer = self.a * batch.images + self.b * batch.condition[:, :, None, None]
        return {"total": (answer - batch.target).square().mean()}


class Pairs:
    """Pictures with target = -0.5 * image + 0.25 * condition."""

    def __init__(self, pictures: Any) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int) -> dict[str, Any]:
        item, condition = self.pictures[i], torch.tensor([float(i)])
        return {**item, "target": -0.5 * item["image"] + 0.25 * condition[:, None], "condition": condition.numpy()}


@pytest.fixture
def pairs(pictures: Callable) -> Pairs:
    """Six pairs."""
    return Pairs(pictures(6))


def test_a_loss_learns_from_pairs(pairs: Pairs) -> None:
    state = TrainState(PairedConfig().build(32), TrainingConfig(images=1200, batch_size=6, schedule="constant"))
    for _ in train(state, pairs, 1200):
        pass
    assert_close(state.method.a.detach(), torch.tensor(-0.5), rtol=0.02, atol=0.01)
    assert_close(state.method.b.detach(), torch.tensor(0.25), rtol=0.02, atol=0.01)


def test_parts_and_devices_keep_them(pairs: Pairs) -> None:
    batch = collate(pairs, [4, 0, 2])
    assert batch.target is not None and batch.condition is not None
    assert batch.target.shape == batch.images.shape and batch.condition.tolist() == [[4.0], [0.0], [2.0]]
    part = batch.part(slice(1, 3))
    assert torch.equal(part.target, batch.target[1:]) and part.condition.tolist() == [[0.0], [2.0]]
    assert part.ids == batch.ids[1:] and part.about == batch.about[1:]
    moved = batch.to("meta", torch.channels_last)
    assert {one.device.type for one in (moved.images, moved.body, moved.target, moved.condition)} == {"meta"}
    still = batch.to("cpu", torch.channels_last)
    assert still.target.is_contiguous(memory_format=torch.channels_last) and torch.equal(still.target, batch.target)


def test_a_batch_without_them_has_none(pictures: Callable) -> None:
    batch = collate(pictures(2), [0, 1])
    assert batch.target is None and batch.condition is None
    assert batch.part(slice(0, 1)).target is None and batch.to("cpu").condition is None


@pytest.mark.parametrize("name", ["target", "condition"])
def test_a_batch_takes_all_or_none(pairs: Pairs, name: str) -> None:
    items = [pairs[i] for i in range(3)]
    del items[1][name]
    with pytest.raises(ConfigError, match=rf"\b2 of 3\b.*\b{name}\b"):
        collate(items, [0, 1, 2])


def test_a_target_that_is_not_finite_is_refused(pairs: Pairs) -> None:
    items = [pairs[i] for i in range(3)]
    items[2]["target"] = torch.full((1, 32, 32), torch.nan)
    with pytest.raises(Rejected):
        collate(items, [0, 1, 2])
