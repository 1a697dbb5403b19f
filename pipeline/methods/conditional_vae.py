"""`conditional_vae`: a variational autoencoder conditioned on what the image shows.

Sohn et al., "Learning structured output representation using deep conditional generative models", NeurIPS 2015, eq. 4,
with the relaxed prior of its section 4.1, p(z|c) = p(z). Notation: c the condition (modality, body part, view, position
in the series, sex, age band), q(z|x,c) = N(mu, diag sigma^2), p(z) = N(0, I), p(x|z,c) = N(x_hat, s^2 I) with a fixed s
(`decoder_std`). Loss: E_q[-log p(x|z,c)] + beta KL(q || p), with one sample of z, in nats per image. z need not
carry what c says, so normal means normal for such an image. A missing attribute is a condition of its own
("unknown"), trained by hiding attributes at random; it is never guessed. With `restoration` the answer is found
at test time by gradient descent on these terms (`pipeline.nn.energy`).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.methods.base import Method, Phase
from pipeline.methods.variational import VariationalConfig
from pipeline.nn.bottleneck import doubling, halving
from pipeline.nn.condition import About, ConditionConfig, Conditions
from pipeline.nn.energy import normal_version, restoration_passes
from pipeline.nn.gaussian import StandardNormal, kl_to_standard_normal
from pipeline.nn.importance import importance_bound
from pipeline.nn.rng import Rng
from pipeline.types import Batch


class ConditionalVaeConfig(VariationalConfig):
    """Configuration of `conditional_vae`."""

    name: Literal["conditional_vae"] = "conditional_vae"
    conditions: ConditionConfig = Field(ConditionConfig(), description="attributes that it is conditioned on")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> ConditionalVariationalAutoencoder:
        self.require_size(image_size)
        return ConditionalVariationalAutoencoder(self, image_size, channels, spatial_dims)


class ConditionalVariationalAutoencoder(Method):
    """(x, c) -> q(z|x,c) -> (z, c) -> x_hat."""

    conditional = True
    config: ConditionalVaeConfig

    def __init__(self, config: ConditionalVaeConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        sizes = config.levels(image_size)
        bottom = (sizes[-1], *[image_size // 2 ** len(sizes)] * spatial_dims)
        condition_width = config.conditions.width
        self.conditions = Conditions(config.conditions)
        self.encoder = halving(spatial_dims, [config.inputs(channels), *sizes])
        self.posterior = nn.Linear(math.prod(bottom) + condition_width, 2 * config.latent)
        self.expand = nn.Sequential(
            nn.Linear(config.latent + condition_width, math.prod(bottom)), nn.Unflatten(1, bottom)
        )
        self.decoder = doubling(spatial_dims, [*reversed(sizes), channels])
        self.phases = (Phase("train", lr=config.lr),)

    def encode(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of q(z|x,c), each [B, latent]."""
        features = torch.cat([self.encoder(self.config.seen(x)).flatten(1), c], dim=1)
        mu, log_variance = self.posterior(features).float().chunk(2, dim=1)
        return mu, log_variance

    def decode(self, z: Tensor, c: Tensor) -> Tensor:
        """Return the mean x_hat of p(x|z,c)."""
        return self.decoder(self.expand(torch.cat([z, c], dim=1))).float()

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return -eq. 4 with its terms in nats per image, the KL term before its weight."""
        x, clean = self.config.pair(batch, rng)
        c = self.conditions(batch.about, len(x), rng)
        mu, log_variance = self.encode(x, c)
        z = mu + (0.5 * log_variance).exp() * rng.normal(*mu.shape[1:])
        return self.config.terms(clean, self.decode(z, c), kl_to_standard_normal(mu, log_variance))

    @property
    def passes(self) -> int:
        """One, and those of `restoration`."""
        return restoration_passes(self.config)

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None, about: About = ()) -> Tensor:
        """Return the decoded mean of q(z|x,c), or the result of `restoration`; no randomness.

        Args:
            x: [B, C, *spatial].
            rng, body: not used.
            about: attributes of each image (`pipeline.data.images.conditions`); () if unknown.
        """
        with self.inference():
            c = self.conditions(about, len(self.check(x)))
            encode, decode = partial(self.encode, c=c), partial(self.decode, c=c)
            return normal_version(x, encode, decode, StandardNormal(), self.config).to(x.dtype)

    def sample(self, rng: Rng, about: About = ()) -> Tensor:
        """Return new images [B, C, *spatial], one per row of `rng`: the means of p(x|z,c), z from the prior N(0, I).

        Args:
            rng: one stream per row.
            about: attributes of each image; () is an image of which nothing is known.
        """
        with self.inference():
            return self.decode(rng.normal(self.config.latent), self.conditions(about, len(rng)))

    def log_likelihood(self, x: Tensor, rng: Rng, samples: int = 64, about: About = ()) -> Tensor:
        """Return a lower bound on log p(x|c) in nats, [B], by `samples` draws of z (`pipeline.nn.importance`)."""
        with self.inference():
            c = self.conditions(about, len(self.check(x)))
            encode, decode = partial(self.encode, c=c), partial(self.decode, c=c)
            return importance_bound(x, encode, decode, StandardNormal(), self.config.decoder_std, samples, rng)
