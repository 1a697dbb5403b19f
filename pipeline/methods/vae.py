"""`vae`: the variational autoencoder of Kingma and Welling, arXiv:1312.6114.

Notation: q(z|x) = N(mu, diag sigma^2), p(z) = N(0, I), p(x|z) = N(x_hat, s^2 I) with a fixed s (`decoder_std`). The
loss is the negative of eq. 10 with one sample of z, in nats per image, with its two terms named. `beta` weights the KL
term: 1 is the VAE, more is the beta-VAE of Higgins et al., ICLR 2017, eq. 4, which changes only this number. With
`restoration` the answer is found at test time by gradient descent on these terms (`pipeline.nn.energy`).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from pipeline.methods.variational import FlatVariational, VariationalConfig
from pipeline.nn.gaussian import kl_to_standard_normal
from pipeline.nn.rng import Rng
from pipeline.types import Batch


class VaeConfig(VariationalConfig):
    """Configuration of `vae`."""

    name: Literal["vae"] = "vae"

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> VariationalAutoencoder:
        self.require_size(image_size)
        return VariationalAutoencoder(self, image_size, channels, spatial_dims)


class VariationalAutoencoder(FlatVariational):
    """x -> q(z|x) -> z -> x_hat."""

    config: VaeConfig

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return -eq. 10: reconstruction (-log p(x|z)) and KL divergence before its weight, both in nats per image."""
        x, clean = self.config.pair(batch, rng)
        mu, log_variance = self.encode(x)
        z = mu + (0.5 * log_variance).exp() * rng.normal(*mu.shape[1:])
        return self.config.terms(clean, self.decode(z), kl_to_standard_normal(mu, log_variance))

    def sample(self, rng: Rng) -> Tensor:
        """Return new images [B, C, *spatial], one per row of `rng`: the means of p(x|z), z from the prior N(0, I)."""
        with self.inference():
            return self.decode(rng.normal(self.config.latent))
