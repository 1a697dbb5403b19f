"""`ae_u`: eq. 1 as a likelihood, the variance that minimises it, and a map that discounts expected errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal
from torch.testing import assert_close

from pipeline.errors import ConfigError, Rejected
from pipeline.methods.ae_u import AeUConfig, UncertaintyAutoencoder
from pipeline.methods.capabilities import AnomalyMapper, Reconstructor
from pipeline.nn.rng import Rng
from pipeline.training import TrainingConfig, TrainState, train
from pipeline.types import Batch


@pytest.fixture
def method() -> UncertaintyAutoencoder:
    return AeUConfig(widths=(4, 8), hidden=16, latent=3).build(16).eval()


def batch_of(x: torch.Tensor) -> Batch:
    return Batch(x, torch.ones_like(x[:, :1], dtype=torch.bool), tuple(map(str, range(len(x)))))


def test_the_recipe_has_the_published_size() -> None:
    # MedIAnomaly's 2.35 M at 64 px; the further output channel adds a 4x4 kernel from 16 channels and a bias.
    count = sum(p.numel() for p in AeUConfig().build(64).parameters())
    assert round(count / 1e6, 2) == 2.35


def test_the_loss_is_twice_the_gaussian_likelihood_without_its_constant(method: UncertaintyAutoencoder) -> None:
    x = Rng([1, 2]).normal(1, 16, 16)
    terms = method.loss(batch_of(x), "train", Rng([1, 2]))
    x_hat, s = method(x)
    expected = -2 * Normal(x_hat, (0.5 * s).exp()).log_prob(x).mean() - math.log(2 * math.pi)
    assert_close(terms["total"], expected)
    assert_close(terms["total"], terms["reconstruction"] + terms["uncertainty"])


def test_the_loss_is_least_where_the_variance_is_the_squared_error(method: UncertaintyAutoencoder) -> None:
    # d/ds [exp(-s) e + s] = 0 at s = ln e: with s free, the map is 1 everywhere and the loss 1 + mean ln e.
    s = torch.nn.Parameter(torch.zeros(1, 1, 16, 16))
    x = Rng([1]).normal(1, 16, 16)
    x_hat = method(x)[0].detach()
    method.forward = lambda images: (x_hat, s)
    optimiser = torch.optim.Adam([s], lr=0.1)
    for _ in range(300):
        optimiser.zero_grad()
        method.loss(batch_of(x), "train", Rng([1]))["total"].backward()
        optimiser.step()
    clear = (x - x_hat).square() > 1e-4
    assert_close(s[clear], (x - x_hat).square().log()[clear], atol=1e-3, rtol=1e-3)
    assert_close(method.anomaly_map(x, Rng([1]))[clear], torch.ones(int(clear.sum())), atol=5e-3, rtol=0)


def test_noise_that_was_to_be_expected_does_not_stand_out() -> None:
    # Left half: noise of std 0.5, which no code can hold; right half: constant. The same bump of 1 is put on both.
    def noisy(i: int) -> torch.Tensor:
        image = torch.zeros(1, 16, 16)
        image[..., :8] = 0.5 * Rng([i]).normal(1, 16, 8)[0]
        return image

    class Noisy:
        def __len__(self) -> int:
            return 256

        def __getitem__(self, i: int) -> dict[str, object]:
            return {"image": noisy(i), "body": torch.ones(1, 16, 16, dtype=torch.bool), "id": str(i)}

    method = AeUConfig(widths=(8, 16), hidden=32, latent=2).build(16)
    list(train(TrainState(method, TrainingConfig(images=10_000, batch_size=32)), Noisy(), 32 * 150))
    x = torch.stack([noisy(i) for i in range(1000, 1064)])
    plain = method.anomaly_map(x, Rng(range(64)))
    assert 0.6 < plain[..., :8].mean() < 1.8
    x[..., 6:10, 2:6] += 1
    x[..., 6:10, 10:14] += 1
    marked = method.anomaly_map(x, Rng(range(64)))
    assert marked[..., 6:10, 10:14].mean() > 10 * marked[..., 6:10, 2:6].mean()


def test_it_maps_and_fakes_no_reconstruction(method: UncertaintyAutoencoder) -> None:
    assert isinstance(method, AnomalyMapper) and not isinstance(method, Reconstructor)
    maps = method.anomaly_map(torch.zeros(2, 1, 16, 16), Rng([1, 2]))
    assert maps.shape == (2, 1, 16, 16) and (maps >= 0).all() and not maps.requires_grad


def test_a_row_depends_on_itself_only(method: UncertaintyAutoencoder) -> None:
    x = Rng(range(5)).normal(1, 16, 16)
    whole = method.train().anomaly_map(x, Rng(range(5)))
    assert_close(method.anomaly_map(x[3:4], Rng([3])), whole[3:4], rtol=1e-4, atol=1e-5)


def test_several_channels_share_one_uncertainty() -> None:
    method = AeUConfig(widths=(4, 8), hidden=16, latent=3).build(16, channels=3)
    x_hat, s = method(torch.zeros(2, 3, 16, 16))
    assert x_hat.shape == (2, 3, 16, 16) and s.shape == (2, 1, 16, 16)


def test_bad_input_is_refused(method: UncertaintyAutoencoder) -> None:
    with pytest.raises(Rejected, match="1 of 1 images"):
        method.anomaly_map(torch.full((1, 1, 16, 16), torch.nan), Rng([1]))
    with pytest.raises(ConfigError, match=r"\[B, 1, 16, 16\]"):
        method.anomaly_map(torch.zeros(1, 1, 32, 32), Rng([1]))
    with pytest.raises(ConfigError, match="multiple of 16"):
        AeUConfig().build(40)
