"""`cycle_gan`: its pool, its losses in closed form, and a map between unpaired domains that is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.errors import ConfigError
from pipeline.methods import build_method, parse_method
from pipeline.methods.cycle_gan import CycleGan
from pipeline.nn.image_pool import ImagePool
from pipeline.nn.rng import Rng
from pipeline.training import TrainingConfig, TrainState, train
from pipeline.types import Batch

DISCRIMINATORS = ("judge_y", "judge_x")


def make(small: dict[str, Any], **changes: Any) -> CycleGan:
    method = build_method(parse_method({"name": "cycle_gan", **small["cycle_gan"], **changes}), 32)
    assert isinstance(method, CycleGan)
    return method


def numbered(first: int, count: int) -> Tensor:
    """Images of one pixel, each of a value of its own."""
    return (torch.arange(first, first + count) / 1000)[:, None, None, None]


def test_the_pool_gives_half_of_the_time_an_earlier_image_and_keeps_the_new_one() -> None:
    pool, size, rounds = ImagePool(50, (1, 1, 1)), 50, 2000
    assert_close(pool.exchange(numbered(0, size), Rng(range(size))), numbered(0, size))
    held = set(range(size))
    earlier = 0
    for first in range(size, size + rounds):
        given = round(1000 * float(pool.exchange(numbered(first, 1), Rng([first]))))
        if given != first:
            earlier += 1
            assert given in held, "an image of the pool, and each at most once"
            held = held - {given} | {first}
    assert {round(1000 * one / 8191) for one in pool.images.flatten().tolist()} == held
    assert abs(earlier - rounds / 2) < 5 * (rounds / 4) ** 0.5
    pool.empty()
    assert int(pool.held) == 0 and not pool.images.any()


def test_a_pool_of_no_images_gives_what_it_gets() -> None:
    pool = ImagePool(0, (1, 1, 1))
    for first in (0, 4):
        assert torch.equal(pool.exchange(numbered(first, 4), Rng(range(4))), numbered(first, 4))


class Verdict(nn.Module):
    """A discriminator that says the same of everything."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> list[Tensor]:
        return [torch.full((len(x), 1, 4, 4), self.value)]


def between(rows: int, **sides: Tensor) -> Batch:
    return Batch(sides["x"], sides["x"] > -9, tuple(map(str, range(rows))), target=sides["y"])


def test_the_identity_has_no_cycle_loss_and_undecided_judges_cost_a_quarter_each(small: dict[str, Any]) -> None:
    method = make(small).eval()
    for parameter in (*method.to_y.parameters(), *method.to_x.parameters()):
        parameter.data.zero_()
    for name in DISCRIMINATORS:
        setattr(method, name, Verdict(0.5))
    batch = between(2, x=torch.rand(2, 1, 32, 32), y=-torch.rand(2, 1, 32, 32))
    terms = method.loss(batch, "generators", Rng(range(2)))
    assert not terms["cycle"].any() and not terms["identity"].any()
    assert float(terms["total"]) == pytest.approx(2 * 0.25)
    assert float(method.loss(batch, "discriminators", Rng(range(2)))["total"]) == pytest.approx(0.5)


def test_every_term_is_the_papers(small: dict[str, Any]) -> None:
    """With G(x) = x + a and F(y) = y + b, cycles miss by |a + b| and the identity by |a| and |b|."""
    method, (a, b) = make(small, cycle_weight=7, identity_weight=3).eval(), (0.3, -0.1)
    method.to_y, method.to_x = Shift(a), Shift(b)  # type: ignore[assignment]
    method.judge_y, method.judge_x = Verdict(0.9), Verdict(0.2)
    batch = between(1, x=torch.zeros(1, 1, 32, 32), y=torch.zeros(1, 1, 32, 32))
    terms = method.loss(batch, "generators", Rng([0]))
    assert float(terms["adversarial"]) == pytest.approx(0.1**2 + 0.8**2)
    assert float(terms["cycle"]) == pytest.approx(2 * abs(a + b)) and float(terms["identity"]) == pytest.approx(0.4)
    assert float(terms["total"]) == pytest.approx(0.65 + 7 * 0.4 + 3 * 0.4)
    judged = method.loss(batch, "discriminators", Rng([0]))
    assert float(judged["total"]) == pytest.approx((0.1**2 + 0.8**2 + 0.9**2 + 0.2**2) / 2)


class Shift(nn.Module):
    """A constant added."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return x + self.by


class Unpaired:
    """Bright blobs on dark ground, and other blobs after a known map of their intensities."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, other = blob(index), blob(1000 + index)
        return {"image": image, "body": image > -9, "id": str(index), "target": known(other)}


def blob(seed: int) -> Tensor:
    cx, cy, radius = (torch.rand(3, generator=torch.Generator().manual_seed(seed)) * 0.6).tolist()
    axes = torch.meshgrid(*[torch.linspace(-1, 1, 32)] * 2, indexing="ij")
    distance = ((axes[0] + 0.3 - cx) ** 2 + (axes[1] + 0.3 - cy) ** 2).sqrt()
    return (1.6 * torch.sigmoid(12 * (0.25 + 0.4 * radius - distance)) - 0.8)[None]


def known(x: Tensor) -> Tensor:
    """Intensities -0.8 .. 0.8 become -0.3 .. 0.6, by a curve."""
    return 0.15 + 0.45 * torch.sin(1.9 * x)


def test_a_known_map_between_unpaired_domains_is_learned(small: dict[str, Any]) -> None:
    method = make(small, lr=0.004, identity_weight=0.0)
    images = 4 * 240
    state = TrainState(method, TrainingConfig(batch_size=4, images=images, ema_decay=0.95, precision="fp32"))
    for _ in train(state, Unpaired(), images):
        pass
    x = torch.stack([blob(5000 + number) for number in range(16)])
    there = state.ema.translate(x, "normal", Rng(range(16)))
    back = state.ema.translate(known(x), "unknown", Rng(range(16)))
    assert (there - known(x)).abs().mean() < 0.4 * (x - known(x)).abs().mean()
    assert (back - x).abs().mean() < 0.6 * (known(x) - x).abs().mean()


def test_the_pools_are_filled_in_training_only_and_emptied_afterwards(small: dict[str, Any]) -> None:
    method = make(small)
    batch = between(2, x=torch.rand(2, 1, 32, 32), y=torch.rand(2, 1, 32, 32))
    method.eval().loss(batch, "discriminators", Rng(range(2)))
    assert int(method.pool_y.held) == 0
    method.train().loss(batch, "discriminators", Rng(range(2)))
    assert int(method.pool_y.held) == int(method.pool_x.held) == 2
    method.finish([])
    assert not method.pool_y.images.any()


def test_a_domain_is_not_translated_into_itself(small: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="itself"):
        make(small, domains=("a", "a"))
    with pytest.raises(ConfigError, match="ct and mr, not to 'pet'"):
        make(small, domains=("ct", "mr")).translate(torch.zeros(1, 1, 32, 32), "pet", Rng([0]))
    with pytest.raises(ConfigError, match="64"):
        make(small).translate(torch.zeros(1, 1, 64, 64), "normal", Rng([0]))
