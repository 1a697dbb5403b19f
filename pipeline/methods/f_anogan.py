"""`f_anogan`: a Wasserstein GAN learns normal images, then an encoder learns the latent code of each.

f-AnoGAN: Schlegl et al., Medical Image Analysis 2019. Generator G and critic D are trained as WGAN-GP
(arXiv:1704.00028, algorithm 1); then, with both frozen, the encoder E is trained with residuals of the image and
of the critic's features ("izi_f"). The answer is x_hat = G(E(x)), or the paper's own score of an image. Deviations:
plain convolutions with norms over one image instead of residual blocks; Adam for the encoder instead of RMSProp; the
EMA weights of G and D are kept.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from pipeline.methods.base import Method
from pipeline.methods.inverted_gan import CriticGan, CriticGanConfig, RegeneratingGan
from pipeline.nn.adversarial import between, critic_terms
from pipeline.nn.rng import Rng


class FAnoGanConfig(CriticGanConfig):
    """Configuration of `f_anogan`."""

    name: Literal["f_anogan"] = "f_anogan"
    answer: Literal["reconstruction", "discrepancy"] = Field(
        "reconstruction", description="x_hat, or the paper's score of an image, which has no map"
    )
    penalty: float = Field(10.0, ge=0, description="lambda, weight of the gradient penalty")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> Method:
        answer = Restorer if self.answer == "reconstruction" else DiscrepancyScorer
        return answer(self, image_size, channels, spatial_dims, self.networks(image_size, channels, spatial_dims))


class _FAnoGan(CriticGan):
    """WGAN-GP with an encoder; the classes below give the answers."""

    config: FAnoGanConfig

    def critic_terms(self, x: Tensor, x_tilde: Tensor, rng: Rng) -> dict[str, Tensor]:
        """Return arXiv:1704.00028, equation 3, and its terms."""
        return critic_terms(self.judge, x, x_tilde, between(x, rng), self.config.penalty)


class Restorer(_FAnoGan, RegeneratingGan):
    """Answer with the normal image whose code the encoder predicts."""


class DiscrepancyScorer(_FAnoGan):
    """Answer with the paper's score of an image."""

    def score(self, x: Tensor, rng: Rng) -> Tensor:
        """Return A(x) = A_R(x) + kappa A_D(x), float32 [B], higher = more anomalous; no randomness."""
        with self.inference():
            image, features = self.residuals(self.check(x), x)
            return (image + self.config.kappa * features).float()
