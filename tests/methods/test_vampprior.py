"""`vampprior`: the prior against a mixture of another library, K = 1 against the closed form, and two modes found."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence
from torch.testing import assert_close

from pipeline.methods.vampprior import VampPriorAutoencoder, VampPriorConfig
from pipeline.nn.gaussian import log_mixture, log_normal
from pipeline.nn.rng import Rng
from pipeline.training import TrainingConfig, TrainState, train
from pipeline.types import Batch


def build(**values: Any) -> VampPriorAutoencoder:
    return VampPriorConfig(**{"widths": (4, 8), "latent": 3, "pseudo_inputs": 5} | values).build(16).eval()


def batch_of(x: torch.Tensor) -> Batch:
    return Batch(x, torch.ones_like(x, dtype=torch.bool), tuple(map(str, range(len(x)))))


def posterior(method: VampPriorAutoencoder, x: torch.Tensor) -> Independent:
    mu, log_variance = method.encode(x)
    return Independent(Normal(mu, (0.5 * log_variance).exp()), 1)


def test_densities_are_those_of_an_independent_library() -> None:
    mu, log_variance, z = Rng([1, 2, 3, 4]).normal(6), Rng([5, 6, 7, 8]).normal(6), 3 * Rng(range(9)).normal(6)
    normals = Independent(Normal(mu, (0.5 * log_variance).exp()), 1)
    assert_close(log_normal(mu + 1, mu, log_variance), normals.log_prob(mu + 1))
    assert_close(log_mixture(z, mu, log_variance), MixtureSameFamily(Categorical(torch.ones(4)), normals).log_prob(z))


def test_a_mixture_is_a_density() -> None:
    # Two components in one dimension: the density sums to one over a fine grid.
    z = torch.linspace(-30, 30, 60_001)[:, None]
    density = log_mixture(z, torch.tensor([[-3.0], [4.0]]), torch.tensor([[0.5], [1.5]])).exp()
    assert_close(density.sum() * 1e-3, torch.tensor(1.0), atol=1e-4, rtol=0)


def test_the_loss_is_the_one_sample_bound_with_the_mixture_of_posteriors() -> None:
    method = build(beta=2.0)
    x = Rng([1, 2]).normal(1, 16, 16)
    terms = method.loss(batch_of(x), "train", Rng([5, 6]))
    q = posterior(method, x)
    z = q.base_dist.loc + q.base_dist.scale * Rng([5, 6]).normal(3)
    prior = MixtureSameFamily(Categorical(torch.ones(5)), posterior(method, method.pseudo_inputs.clamp(-1, 1)))
    p = Normal(method.decode(z), 0.1)
    assert_close(terms["reconstruction"], -p.log_prob(x).flatten(1).sum(dim=1).mean())
    assert_close(terms["kl"], (q.log_prob(z) - prior.log_prob(z)).mean(), rtol=1e-4, atol=1e-5)
    assert_close(terms["total"], terms["reconstruction"] + 2.0 * terms["kl"])


def test_one_pseudo_input_has_the_closed_divergence() -> None:
    method = build(pseudo_inputs=1)
    n, x = 4000, Rng([1]).normal(1, 16, 16)
    with torch.no_grad():
        method.pseudo_inputs.copy_(Rng([9]).normal(1, 16, 16).clamp(-0.9, 0.9))
        expected = kl_divergence(posterior(method, x), posterior(method, method.pseudo_inputs)).item()
        mu, log_variance = (value.expand(n, -1) for value in method.encode(x))
        z = mu + (0.5 * log_variance).exp() * Rng(range(n)).normal(3)
        draws = log_normal(z, mu, log_variance) - log_mixture(z, *method.encode(method.pseudo_inputs))
    assert expected > 1e-3
    assert draws.mean().item() == pytest.approx(expected, abs=5 * draws.std().item() / math.sqrt(n))


def test_a_pseudo_input_equal_to_the_image_leaves_nothing_to_pay() -> None:
    method, x = build(pseudo_inputs=1), Rng([1]).normal(1, 16, 16).clamp(-0.9, 0.9)
    with torch.no_grad():
        method.pseudo_inputs.copy_(x)
    assert_close(method.loss(batch_of(x), "train", Rng([3]))["kl"], torch.tensor(0.0), atol=1e-5, rtol=0)


def test_with_the_images_as_pseudo_inputs_the_prior_is_the_aggregated_posterior() -> None:
    # (1/N) sum_n q(z|x_n), the prior that maximises the bound (section 2.1 of the paper).
    method, x = build(), Rng(range(5)).normal(1, 16, 16).clamp(-0.9, 0.9)
    z = 2 * Rng(range(9)).normal(3)
    with torch.no_grad():
        method.pseudo_inputs.copy_(x)
        each = torch.stack([posterior(method, image[None]).log_prob(z) for image in x])
        assert_close(method.prior().log_density(z), each.logsumexp(dim=0) - math.log(5), rtol=1e-4, atol=1e-5)


class TwoKinds:
    """Three dark images to one bright one."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> dict[str, Any]:
        image = torch.full((1, 16, 16), -0.7 if i else 0.7)
        return {"image": image, "body": torch.ones(1, 16, 16, dtype=torch.bool), "id": str(i)}


def test_samples_are_of_the_two_kinds_that_there_are() -> None:
    method = build(latent=2, pseudo_inputs=2, decoder_std=0.2, lr=1e-2)
    with torch.no_grad():  # from apart: components that start alike may all settle on the commoner kind
        method.pseudo_inputs += torch.tensor([-0.4, 0.4])[:, None, None, None]
    state = TrainState(method, TrainingConfig(images=10**6, batch_size=16, ema_decay=0.95))
    list(train(state, TwoKinds(), 16 * 200))
    shades = state.ema.sample(Rng(range(400))).mean(dim=(1, 2, 3))
    assert ((shades.abs() - 0.7).abs() < 0.2).double().mean() > 0.95
    assert (shades > 0).double().mean().item() == pytest.approx(0.5, abs=5 * 0.5 / 20)  # K = 2 equal components


def test_samples_follow_their_keys() -> None:
    method = build()
    whole = method.sample(Rng([1, 2, 3]))
    assert_close(method.sample(Rng([3])), whole[2:], rtol=1e-4, atol=1e-5)
