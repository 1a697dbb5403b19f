"""`dcgan`: the generative adversarial network of Goodfellow et al., arXiv:1406.2661, with the networks of 1511.06434.

Notation: discriminator D = sigmoid(d), generator G, z ~ p(z). D maximises, and G minimises, the value of equation 1,

    V(D, G) = E log D(x) + E log(1 - D(G(z))),

whose best D is p / (p + q) for densities p of the images and q of G(z) (proposition 1). Printed so, G has no gradient
while D wins; it therefore maximises E log D(G(z)) instead (section 3, "non-saturating"), unless `generator_loss` is
`minimax`. Networks: strided convolutions with batch norm (1511.06434, section 3). An encoder inverts the generator
(`inverted_gan`).

Deviations: z is Gaussian, leaky ReLU in the generator too, torch's initial weights, norms over one image
in D, which batch norm would let win (it tells batches apart by their statistics); the EMA weights are kept.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from pipeline.methods.base import Phase
from pipeline.methods.inverted_gan import DISCRIMINATOR_BETAS, InvertedGanConfig, Networks, RegeneratingGan
from pipeline.nn.adversarial import BATCH, Norm, said_fake, said_real
from pipeline.nn.rng import Rng


class DcganConfig(InvertedGanConfig):
    """Configuration of `dcgan`."""

    generator_norm: ClassVar[Norm] = BATCH

    name: Literal["dcgan"] = "dcgan"
    generator_loss: Literal["non-saturating", "minimax"] = Field(
        "non-saturating", description="-log D(G(z)), or log(1 - D(G(z))) as equation 1 prints it"
    )

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> Dcgan:
        return Dcgan(self, image_size, channels, spatial_dims, self.networks(image_size, channels, spatial_dims))


class Dcgan(RegeneratingGan):
    """z -> x by a generator that a discriminator judges; x -> z by an encoder."""

    config: DcganConfig

    def __init__(
        self, config: DcganConfig, image_size: int, channels: int, spatial_dims: int, networks: Networks
    ) -> None:
        super().__init__(config, image_size, channels, spatial_dims, networks)
        self.phases = (
            Phase("discriminator", ("judge",), config.lr, DISCRIMINATOR_BETAS, until=config.gan_share),
            Phase("generator", ("generator",), config.lr, DISCRIMINATOR_BETAS, until=config.gan_share),
            config.encoder_phase(),
        )

    def gan_terms(self, x: Tensor, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the discriminator's loss, -V of equation 1, or the generator's, and its terms."""
        z = self.noise(rng)
        if phase == "discriminator":
            real, fake = self.changed(x, rng, "real"), self.changed(self.fake(z), rng, "fake")
            terms = {"real": said_real(self.judge(real)), "fake": said_fake(self.judge(fake))}
            return {"total": terms["real"] + terms["fake"], **terms}
        d = self.judge(self.changed(self.generator(z), rng, "fake"))
        total = said_real(d) if self.config.generator_loss == "non-saturating" else -said_fake(d)
        return {"total": total, "judged": d.mean()}
