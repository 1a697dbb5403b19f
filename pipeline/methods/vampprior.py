"""`vampprior`: a variational autoencoder whose prior is a mixture of its own posteriors, arXiv:1705.07120.

Notation: q(z|x) = N(mu(x), diag sigma^2(x)), u_1 .. u_K learnable pseudo-inputs of the size of an image, prior p(z) =
1/K sum_k q(z|u_k) (the VampPrior, section 2.2), p(x|z) = N(x_hat, s^2 I) with a fixed s (`decoder_std`). Loss: -log
p(x|z) + beta (log q(z|x) - log p(z)) with one sample z ~ q(z|x), in nats per image: the KL of a mixture has no closed
form, and its one-sample estimate may be negative. Deviations: hardtanh is limited to the image range [-1, 1];
pseudo-inputs pass the encoder in one batch with the images, so that its batch norm is the same for both. With
`restoration` the answer is found at test time by gradient descent on these terms (`pipeline.nn.energy`).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.methods.variational import FlatVariational, VariationalConfig
from pipeline.nn.gaussian import Mixture
from pipeline.nn.rng import Rng
from pipeline.types import Batch

START_STD = 0.05  # standard deviation of the initial pseudo-inputs, enough to make them differ


class VampPriorConfig(VariationalConfig):
    """Configuration of `vampprior`."""

    name: Literal["vampprior"] = "vampprior"
    pseudo_inputs: int = Field(
        32, ge=1, description="K, components of the prior; each step encodes this many additional images"
    )

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> VampPriorAutoencoder:
        self.require_size(image_size)
        return VampPriorAutoencoder(self, image_size, channels, spatial_dims)


class VampPriorAutoencoder(FlatVariational):
    """x -> q(z|x) -> z -> x_hat, with the prior 1/K sum_k q(z|u_k)."""

    config: VampPriorConfig

    def __init__(self, config: VampPriorConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.pseudo_inputs = nn.Parameter(START_STD * torch.randn(config.pseudo_inputs, *self.image_shape))

    def seen_inputs(self) -> Tensor:
        """Return u_1 .. u_K as the encoder sees them: [K, C, *spatial] in [-1, 1]."""
        return F.hardtanh(self.pseudo_inputs)

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the negative one-sample ELBO with its terms in nats per image, the KL term before its weight."""
        x, clean = self.config.pair(batch, rng)
        mu, log_variance = self.encode(torch.cat([x, self.seen_inputs()]))
        (mu, mu_k), (log_variance, log_variance_k) = mu.tensor_split([len(x)]), log_variance.tensor_split([len(x)])
        z = mu + (0.5 * log_variance).exp() * rng.normal(*mu.shape[1:])
        kl = Mixture(mu_k, log_variance_k).divergence(z, mu, log_variance)
        return self.config.terms(clean, self.decode(z), kl)

    def prior(self) -> Mixture:
        """Return the VampPrior, 1/K sum_k q(z|u_k)."""
        return Mixture(*self.encode(self.seen_inputs()))

    def sample(self, rng: Rng) -> Tensor:
        """Return new images [B, C, *spatial], one per row of `rng`: a pseudo-input, z from its posterior, x_hat."""
        with self.inference():
            prior = self.prior()
            k = rng.integers(0, len(prior.mu))
            return self.decode(prior.mu[k] + (0.5 * prior.log_variance[k]).exp() * rng.normal(self.config.latent))
