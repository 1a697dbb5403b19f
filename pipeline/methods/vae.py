"""`vae`: the variational autoencoder of Kingma and Welling, arXiv:1312.6114.

Notation: q(z|x) = N(mu, diag sigma^2), p(z) = N(0, I), p(x|z) = N(x_hat, s^2 I) with a fixed s (`decoder_std`). The
loss is the negative of eq. 10 with one sample of z, in nats per image, with its two terms named. `beta` weights the KL
term: 1 is the VAE, more is the beta-VAE of Higgins et al., ICLR 2017, eq. 4, which changes only this number. With
`restoration` the answer is found at test time by gradient descent on these terms (`pipeline.nn.energy`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from pipeline.corruption.painting import RepairingFields
from pipeline.methods.base import Method, MethodConfig, Phase, levels_between, require_size, widths
from pipeline.nn.bottleneck import on_grid
from pipeline.nn.energy import Restoration, normal_version, restoration_passes
from pipeline.nn.gaussian import StandardNormal, gaussian_nll, kl_to_standard_normal
from pipeline.nn.rng import Rng
from pipeline.nn.variational import variational_network
from pipeline.types import Batch


class VaeConfig(RepairingFields, MethodConfig):
    """Configuration of `vae`."""

    name: Literal["vae"] = "vae"
    widths: tuple[int, ...] = Field((16, 32, 64, 64), min_length=2, description="channels per level, the last repeated")
    latent: int = Field(32, ge=1, description="length of the code z")
    decoder_std: float = Field(0.1, gt=0, description="standard deviation s of p(x|z), in units of the image [-1, 1]")
    beta: float = Field(1.0, ge=0, description="weight of the KL term; above 1 it is a beta-VAE")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam")
    restoration: Restoration = None

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> VariationalAutoencoder:
        require_size(self.name, image_size, 2 ** len(self.widths), 2 ** (len(self.widths) + 1))
        return VariationalAutoencoder(self, image_size, channels, spatial_dims)


class VariationalAutoencoder(Method):
    """x -> q(z|x) -> z -> x_hat."""

    config: VaeConfig

    def __init__(self, config: VaeConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        levels = levels_between(image_size, bottom=4, at_least=len(config.widths))
        seen = config.inputs(channels)
        self.network = variational_network(self.image_shape, config.latent, widths(config.widths, levels), seen)
        self.phases = (Phase("train", lr=config.lr),)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of q(z|x), each [B, latent]."""
        mu, log_variance = self.network.encode_forward(self.config.seen(x))
        return mu.float(), log_variance.float()

    def decode(self, z: Tensor) -> Tensor:
        """Return the mean x_hat of p(x|z)."""
        return self.network.decode_forward(z, use_sigmoid=False).float()

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return -eq. 10: reconstruction (-log p(x|z)) and KL divergence before its weight, both in nats per image."""
        x, clean = self.config.pair(batch, rng)
        mu, log_variance = self.encode(x)
        z = mu + (0.5 * log_variance).exp() * rng.normal(*mu.shape[1:])
        reconstruction = gaussian_nll(clean, self.decode(z), self.config.decoder_std).mean()
        kl = kl_to_standard_normal(mu, log_variance).mean()
        return {"total": reconstruction + self.config.beta * kl, "reconstruction": reconstruction, "kl": kl}

    @property
    def passes(self) -> int:
        """One, and those of `restoration`."""
        return restoration_passes(self.config)

    def sample(self, rng: Rng) -> Tensor:
        """Return new images [B, C, *spatial], one per row of `rng`: the means of p(x|z), z from the prior N(0, I)."""
        with self.inference():
            return self.decode(rng.normal(self.config.latent))

    def to_code(self, x: Tensor) -> Tensor:
        """Return the mean of q(z|x) on a grid of 1: [B, latent, 1, 1]."""
        return on_grid(self.network.encode_forward(self.config.seen(x))[0], self.spatial_dims)

    def from_code(self, z: Tensor) -> Tensor:
        """Return the mean of p(x|z)."""
        return self.network.decode_forward(z.flatten(1), use_sigmoid=False)

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return the decoded mean of q(z|x), or the result of `restoration`; no randomness."""
        with self.inference():
            return normal_version(self.check(x), self.encode, self.decode, StandardNormal(), self.config).to(x.dtype)
