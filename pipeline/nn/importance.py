"""A bound on the likelihood of an image under a variational autoencoder, by importance sampling: arXiv:1509.00519."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.nn.gaussian import Prior, gaussian_nll, log_normal
from pipeline.nn.rng import Rng


def importance_bound(
    x: Tensor,
    encode: Callable[[Tensor], tuple[Tensor, Tensor]],
    decode: Callable[[Tensor], Tensor],
    prior: Prior,
    std: float,
    samples: int,
    rng: Rng,
) -> Tensor:
    """Return log (1/K) sum_k p(x|z_k) p(z_k) / q(z_k|x), z_k ~ q(z|x), in nats, [B] (eq. 8 of Burda et al.).

    Its expectation is the ELBO for K = 1, never decreases with K, and tends to log p(x).

    Args:
        x: [B, C, *spatial].
        encode, decode: mean and log-variance of q(z|x), and the mean of p(x|z).
        prior: p(z).
        std: standard deviation of p(x|z).
        samples: K.
        rng: one stream per row.
    """
    mu, log_variance = encode(x)
    logs = []
    for _ in range(samples):
        z = mu + (0.5 * log_variance).exp() * rng.normal(*mu.shape[1:])
        logs.append(prior.log_density(z) - gaussian_nll(x, decode(z), std) - log_normal(z, mu, log_variance))
    return torch.stack(logs).logsumexp(dim=0) - math.log(samples)
