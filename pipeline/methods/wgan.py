"""`wgan`: a GAN whose critic measures the Wasserstein distance, kept Lipschitz by clipped weights, arXiv:1701.07875.

Notation of the paper: critic f_w, generator g_theta, z ~ p(z), limit c. The critic maximises E f_w(x) - E f_w(g(z))
(equation 2; algorithm 1, lines 5 to 7) with w clipped to [-c, c] after each step, so that at its best the value is K
times the Wasserstein distance, K depending on c and the network; the generator minimises it. The paper calls clipping
"a clearly terrible way to enforce a Lipschitz constraint": it is here as the contrast to `wgan_gp`. An encoder inverts
the generator (`inverted_gan`).

Deviations: Adam with beta_1 = 0 instead of RMSProp, which is RMSProp with a corrected start; leaky ReLU in the
generator; the critic's norms over one image; the EMA weights are kept.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from pipeline.methods.inverted_gan import CriticGan, CriticGanConfig, RegeneratingGan
from pipeline.nn.adversarial import BATCH, Norm, clip_weights, wasserstein
from pipeline.nn.rng import Rng


class WganConfig(CriticGanConfig):
    """Configuration of `wgan`."""

    generator_norm: ClassVar[Norm] = BATCH

    name: Literal["wgan"] = "wgan"
    clip: float = Field(0.01, gt=0, description="c, limit of every weight of the critic")
    lr: float = Field(5e-5, gt=0, description="learning rate of generator and critic")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> Wgan:
        return Wgan(self, image_size, channels, spatial_dims, self.networks(image_size, channels, spatial_dims))


class Wgan(CriticGan, RegeneratingGan):
    """z -> x by a generator that lowers the critic's value; x -> z by an encoder."""

    config: WganConfig

    def critic_terms(self, x: Tensor, x_tilde: Tensor, rng: Rng) -> dict[str, Tensor]:
        """Return minus the value of equation 2, and the value."""
        distance = wasserstein(self.judge, x, x_tilde)
        return {"total": -distance, "wasserstein": distance}

    def after_step(self, phase: str) -> None:
        """Clip the critic's weights (algorithm 1, line 7)."""
        if phase == "critic":
            clip_weights(self.judge, self.config.clip)
