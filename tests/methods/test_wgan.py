"""`wgan` and `wgan_gp`: critics of shifted Gaussians, whose Wasserstein distance is the length of the shift."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.methods.inverted_gan import CriticGan, Networks
from pipeline.methods.wgan import Wgan, WganConfig
from pipeline.methods.wgan_gp import WganGp, WganGpConfig
from pipeline.nn.adversarial import FeatureJudge, between, clip_weights
from pipeline.nn.rng import Rng
from pipeline.types import Batch

SHIFT = 2.0
ROWS = 128


def critic(hidden: int, activation: nn.Module) -> FeatureJudge:
    torch.manual_seed(0)
    return FeatureJudge(nn.Sequential(nn.Flatten(), nn.Linear(1, hidden), activation), nn.Linear(hidden, 1, bias=False))


def networks(hidden: int, activation: nn.Module) -> Networks:
    """A generator that gives its noise, N(0, 1), and a critic of one pixel."""
    return Networks(nn.Unflatten(1, (1, 1, 1)), critic(hidden, activation), nn.Flatten())


def shifted() -> Batch:
    """N(2, 1), quantile by quantile, so that the distance to its partner is the shift itself."""
    z = Rng(range(ROWS)).normal(1)[:, :, None, None]
    return Batch(z + SHIFT, torch.ones_like(z, dtype=torch.bool), tuple(str(i) for i in range(ROWS)))


def train_critic(method: CriticGan, steps: int, lr: float) -> dict[str, Tensor]:
    optimiser = torch.optim.Adam(method.judge.parameters(), lr=lr, betas=(0.5, 0.9))
    batch = shifted()
    for _ in range(steps):
        terms = method.loss(batch, "critic", Rng(range(ROWS)))
        optimiser.zero_grad()
        terms["total"].backward()
        optimiser.step()
        method.after_step("critic")
    return {name: value.detach() for name, value in method.loss(batch, "critic", Rng(range(ROWS))).items()}


def test_a_clipped_critic_measures_the_distance_times_the_slope_that_clipping_allows() -> None:
    # Two linear layers with 16 hidden units and weights up to c = 0.5 have slopes up to K = 16 c^2 = 4.
    method = Wgan(WganConfig(latent=1, clip=0.5), 1, 1, 2, networks(16, nn.Identity()))
    terms = train_critic(method, 100, 0.05)
    assert_close(terms["wasserstein"], torch.tensor(4 * SHIFT))
    assert_close(terms["total"], -terms["wasserstein"])
    assert all(p.abs().max() <= 0.5 for p in method.judge.parameters())


def test_a_penalised_critic_measures_the_distance_itself_with_gradient_1_on_the_lines() -> None:
    # The best slope g of d g - lambda (g - 1)^2 is 1 + d / (2 lambda): 1.02 for lambda = 50, and the value d g = 2.04.
    method = WganGp(WganGpConfig(latent=1, penalty=50.0), 1, 1, 2, networks(16, nn.Softplus()))
    terms = train_critic(method, 300, 0.02)
    assert_close(terms["wasserstein"], torch.tensor(1.02 * SHIFT), rtol=0.03, atol=0)
    batch, rng = shifted(), Rng(range(ROWS)).fork("lines")
    epsilon, x_tilde = between(batch.images, rng), rng.normal(1)[:, :, None, None]
    x_hat = (epsilon * batch.images + (1 - epsilon) * x_tilde).requires_grad_()
    norm = torch.autograd.grad(method.judge(x_hat).sum(), x_hat)[0].flatten(1).norm(dim=1)
    assert (norm - 1.02).abs().mean() < 0.05
    assert float(terms["gradient_penalty"]) < 0.01


@pytest.mark.parametrize(("method", "config"), [(Wgan, WganConfig), (WganGp, WganGpConfig)])
def test_the_generator_raises_what_the_critic_says_of_it(method: type[CriticGan], config: type) -> None:
    nets = networks(4, nn.ReLU())
    gan = method(config(latent=1), 1, 1, 2, nets)
    z = Rng([1, 2, 3]).normal(1)
    total = gan.loss(shifted(), "generator", Rng([1, 2, 3]))["total"]
    assert_close(total, -nets.judge(nets.generator(z)).mean())
    assert [(p.name, p.repeats) for p in gan.phases] == [("critic", 5), ("generator", 1), ("encoder", 1)]


def test_only_the_critic_s_step_clips_and_every_weight_of_it() -> None:
    method = Wgan(WganConfig(latent=1, clip=0.01), 1, 1, 2, networks(4, nn.ReLU()))
    before = method.judge.answer.weight.clone()
    method.after_step("generator")
    assert torch.equal(method.judge.answer.weight, before)
    method.after_step("critic")
    assert_close(method.judge.answer.weight, before.clamp(-0.01, 0.01))
    layer = nn.Linear(2, 2)
    clip_weights(layer, 0.1)
    assert layer.weight.requires_grad and max(p.abs().max() for p in layer.parameters()) <= 0.1
