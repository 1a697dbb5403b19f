"""`alpha_gan`: the four losses of algorithm 1 by hand, each for its own network alone."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from pipeline.methods.alpha_gan import AlphaGan, AlphaGanConfig
from pipeline.nn.rng import Rng
from pipeline.training import TrainingConfig, TrainState, train
from pipeline.types import Batch

SMALL = AlphaGanConfig(widths=(8, 8), latent=3, code_hidden=16, lr=2e-3)


def build() -> AlphaGan:
    return SMALL.build(16)


def batch() -> Batch:
    x = Rng([1, 2, 3]).uniform(1, 16, 16, low=-1, high=1)
    return Batch(x, torch.ones_like(x, dtype=torch.bool), ("a", "b", "c"))


class Images:
    """A disc of varying size."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> dict[str, object]:
        y, x = torch.meshgrid(*[torch.arange(16.0) - 7.5] * 2, indexing="ij")
        image = torch.tanh(2 + 0.5 * i - (y**2 + x**2).sqrt())[None] * 0.8
        return {"image": image, "body": torch.ones_like(image, dtype=torch.bool), "id": str(i)}


def test_each_loss_is_that_of_algorithm_1() -> None:
    method, b = build(), batch()
    x, z = b.images, Rng([1, 2, 3]).normal(3)
    z_hat = method.encoder(x)
    x_hat, x_tilde = method.generator(z_hat), method.generator(z)
    big_d, big_c = (
        (lambda v: torch.sigmoid(method.discriminator(v))),
        (lambda v: torch.sigmoid(method.code_discriminator(v))),
    )
    error = 10 * (x - x_hat).abs().mean()
    by_hand = {
        "encoder": error + (-big_c(z_hat).log() + (1 - big_c(z_hat)).log()).mean(),
        "generator": error + sum((-big_d(v).log() + (1 - big_d(v)).log()).mean() for v in (x_hat, x_tilde)),
        "discriminator": -(big_d(x).log() + (1 - big_d(x_hat)).log() + (1 - big_d(x_tilde)).log()).mean(),
        "code_discriminator": -((1 - big_c(z_hat)).log() + big_c(z).log()).mean(),
    }
    for phase, expected in by_hand.items():
        assert_close(method.loss(b, phase, Rng([1, 2, 3]))["total"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("phase", "others"),
    [
        ("generator", ("encoder",)),
        ("discriminator", ("encoder", "generator")),
        ("code_discriminator", ("encoder", "generator")),
    ],
)
def test_gradients_stop_where_the_paper_stops_them(phase: str, others: tuple[str, ...]) -> None:
    method = build()
    total = method.loss(batch(), phase, Rng([1, 2, 3]))["total"]
    parameters = [p for name in others for p in method.get_submodule(name).parameters()]
    assert all(g is None for g in torch.autograd.grad(total, parameters, allow_unused=True))


def test_it_reconstructs_what_it_learnt_and_validates_that_alone() -> None:
    state = TrainState(build(), TrainingConfig(batch_size=8, images=8 * 240, ema_decay=0.9))
    x = torch.stack([Images()[i]["image"] for i in range(8)])
    b = Batch(x, torch.ones_like(x, dtype=torch.bool), tuple("abcdefgh"))
    before = state.ema.validation(b, "encoder", Rng([1]))["total"]
    list(train(state, Images(), 8 * 240))
    after = state.ema.validation(b, "encoder", Rng([1]))["total"]
    x_hat = state.ema.reconstruct(x, Rng(range(8)))
    assert_close((x - x_hat).abs().mean(), after.detach())
    assert after < 0.4 * before
