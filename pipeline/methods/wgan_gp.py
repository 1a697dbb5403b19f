"""`wgan_gp`: a Wasserstein GAN whose critic's gradient has norm 1 between images, arXiv:1704.00028.

Notation of the paper: critic D, generator G, x_tilde = G(z), x_hat = epsilon x + (1 - epsilon) x_tilde. The critic
minimises equation 3, E D(x_tilde) - E D(x) + lambda E (|grad D(x_hat)| - 1)^2, and the generator -E D(G(z)) (algorithm
1). The best critic has gradients of norm 1 on the lines between matched pairs (proposition 1), which the penalty asks
for where clipped weights (`wgan`) cannot. An encoder inverts the generator, as in `f_anogan`, which adds a score.

Deviations: strided convolutions instead of residual blocks, leaky ReLU in the generator, the critic's norms over one
image; the EMA weights are kept.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from pipeline.methods.inverted_gan import CriticGan, CriticGanConfig, RegeneratingGan
from pipeline.nn.adversarial import BATCH, Norm, between, critic_terms
from pipeline.nn.rng import Rng


class WganGpConfig(CriticGanConfig):
    """Configuration of `wgan_gp`."""

    generator_norm: ClassVar[Norm] = BATCH

    name: Literal["wgan_gp"] = "wgan_gp"
    penalty: float = Field(10.0, ge=0, description="lambda, weight of the gradient penalty")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> WganGp:
        return WganGp(self, image_size, channels, spatial_dims, self.networks(image_size, channels, spatial_dims))


class WganGp(CriticGan, RegeneratingGan):
    """z -> x by a generator that lowers the critic's value; x -> z by an encoder."""

    config: WganGpConfig

    def critic_terms(self, x: Tensor, x_tilde: Tensor, rng: Rng) -> dict[str, Tensor]:
        """Return equation 3 and its terms."""
        return critic_terms(self.judge, x, x_tilde, between(x, rng), self.config.penalty)
