"""Gaussian densities in nats, as the variational autoencoders need them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


def kl_to_standard_normal(mu: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mu, sigma^2) || N(0, I)) in nats, [B] (arXiv:1312.6114, appendix B)."""
    return -0.5 * (1 + log_variance - mu.square() - log_variance.exp()).sum(dim=1)


def gaussian_nll(x: Tensor, x_hat: Tensor, std: float) -> Tensor:
    """Return -log N(x; x_hat, std^2 I) in nats, [B], the constant included."""
    constant = math.log(std) + 0.5 * math.log(2 * math.pi)
    return (0.5 * ((x - x_hat) / std).square() + constant).flatten(1).sum(dim=1)


def log_normal(z: Tensor, mu: Tensor, log_variance: Tensor) -> Tensor:
    """Return log N(z; mu, diag exp(log_variance)) in nats, summed over the last dimension; shapes broadcast."""
    squared = (z - mu).square() * (-log_variance).exp()
    return -0.5 * (squared + log_variance + math.log(2 * math.pi)).sum(dim=-1)


def log_mixture(z: Tensor, mu: Tensor, log_variance: Tensor) -> Tensor:
    """Return log (1/K) sum_k N(z; mu_k, diag exp(log_variance_k)) in nats, [B].

    Args:
        z: [B, D].
        mu, log_variance: [K, D].
    """
    each = log_normal(z[:, None], mu[None], log_variance[None])
    return torch.logsumexp(each, dim=1) - math.log(len(mu))


class Prior(Protocol):
    """p(z) over codes [B, D]."""

    def divergence(self, z: Tensor, mu: Tensor, log_variance: Tensor) -> Tensor:
        """Return KL(N(mu, sigma^2) || p), or one sample's estimate of it at z, in nats, [B]."""
        ...

    def log_density(self, z: Tensor) -> Tensor:
        """Return log p(z) in nats, [B]."""
        ...


class StandardNormal:
    """p(z) = N(0, I), whose divergence has a closed form."""

    def divergence(self, z: Tensor, mu: Tensor, log_variance: Tensor) -> Tensor:
        """Return KL(N(mu, sigma^2) || N(0, I)) in nats, [B]; z is not needed."""
        return kl_to_standard_normal(mu, log_variance)

    def log_density(self, z: Tensor) -> Tensor:
        """Return log N(z; 0, I) in nats, [B]."""
        return log_normal(z, torch.zeros_like(z), torch.zeros_like(z))


@dataclass(frozen=True, slots=True)
class Mixture:
    """p(z) = 1/K sum_k N(z; mu_k, diag exp(log_variance_k)), both [K, D]; its divergence is estimated at z."""

    mu: Tensor
    log_variance: Tensor

    def divergence(self, z: Tensor, mu: Tensor, log_variance: Tensor) -> Tensor:
        """Return log N(z; mu, sigma^2) - log p(z) in nats, [B]; it may be negative."""
        return log_normal(z, mu, log_variance) - self.log_density(z)

    def log_density(self, z: Tensor) -> Tensor:
        """Return log p(z) in nats, [B]."""
        return log_mixture(z, self.mu, self.log_variance)
