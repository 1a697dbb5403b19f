"""`vae`: both terms of eq. 10 against torch.distributions and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from pipeline.methods.vae import VaeConfig
from pipeline.nn.gaussian import gaussian_nll, kl_to_standard_normal
from pipeline.nn.rng import Rng
from pipeline.types import Batch


def test_kl_by_hand() -> None:
    # One dimension, mu = 1, sigma = 1: (1 + 1 - 1 - 0) / 2 = 1/2. mu = 0, sigma^2 = e: (e - 1 - 1) / 2.
    mu, log_variance = torch.tensor([[1.0], [0.0], [0.0]]), torch.tensor([[0.0], [1.0], [0.0]])
    assert_close(kl_to_standard_normal(mu, log_variance), torch.tensor([0.5, (math.e - 2) / 2, 0.0]))


def test_kl_equals_the_closed_form_of_an_independent_library() -> None:
    mu, log_variance = Rng([1, 2]).normal(7), Rng([3, 4]).normal(7)
    expected = kl_divergence(Normal(mu, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(dim=1)
    assert_close(kl_to_standard_normal(mu, log_variance), expected)


def test_reconstruction_is_the_full_gaussian_log_likelihood() -> None:
    x, x_hat = Rng([1]).normal(1, 4, 4), Rng([2]).normal(1, 4, 4)
    assert_close(gaussian_nll(x, x_hat, 0.3), -Normal(x_hat, 0.3).log_prob(x).sum().reshape(1))


def test_the_loss_is_eq_10_with_one_reparametrised_sample() -> None:
    method = VaeConfig(widths=(4, 8), latent=3).build(16).eval()
    x = Rng([1, 2]).normal(1, 16, 16)
    terms = method.loss(Batch(x, x > 9, ("a", "b")), "train", Rng([5, 6]))
    mu, log_variance = method.network.encode_forward(x)
    q = Normal(mu, (0.5 * log_variance).exp())
    z = q.loc + q.scale * Rng([5, 6]).normal(3)
    p = Normal(method.network.decode_forward(z, use_sigmoid=False), 0.1)
    assert_close(terms["reconstruction"], -p.log_prob(x).flatten(1).sum(dim=1).mean())
    assert_close(terms["kl"], kl_divergence(q, Normal(0.0, 1.0)).sum(dim=1).mean())
    assert_close(terms["total"], terms["reconstruction"] + terms["kl"])


def test_beta_weighs_the_divergence_and_nothing_else() -> None:
    # Higgins et al., ICLR 2017, eq. 4; at 1 the two are one method.
    x = Rng([1, 2]).normal(1, 16, 16)
    plain, beta = (
        VaeConfig(widths=(4, 8), latent=3, beta=beta)
        .build(16)
        .eval()
        .loss(Batch(x, x > 9, ("a", "b")), "train", Rng([5, 6]))
        for beta in (1.0, 4.0)
    )
    assert_close((beta["reconstruction"], beta["kl"]), (plain["reconstruction"], plain["kl"]))
    assert_close(beta["total"] - plain["total"], 3 * plain["kl"], rtol=1e-5, atol=1e-6 * plain["total"].item())


def test_reconstruction_decodes_the_mean() -> None:
    method = VaeConfig(widths=(4, 8), latent=3).build(16).eval()
    x = Rng([1]).normal(1, 16, 16)
    mu, _ = method.network.encode_forward(x)
    assert_close(method.reconstruct(x, Rng([1])), method.network.decode_forward(mu, use_sigmoid=False).detach())


def test_more_draws_bound_the_likelihood_more_closely() -> None:
    # The importance-sampled bound is at least the ELBO, the negative of the loss, on average over draws.
    method = VaeConfig(widths=(4, 8), latent=3, decoder_std=1.0).build(16).eval()
    x = Rng([1, 2]).normal(1, 16, 16)
    with torch.no_grad():
        losses = [method.loss(Batch(x, x > 9, ("a", "b")), "train", Rng([k, k + 1]))["total"] for k in range(20)]
    elbo = -float(sum(losses))
    one, many = (
        sum(float(method.log_likelihood(x, Rng([k, k + 1]), n).mean()) for k in range(20)) / 20 for n in (1, 50)
    )
    assert one == pytest.approx(elbo / 20, rel=1e-3) and many > one + 0.01
