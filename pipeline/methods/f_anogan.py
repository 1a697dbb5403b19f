"""`f_anogan`: a Wasserstein GAN learns normal images, then an encoder learns the latent code of each.

f-AnoGAN: Schlegl et al., Medical Image Analysis 2019. Generator G and critic D are trained as WGAN-GP
(arXiv:1704.00028, algorithm 1); then, with both frozen, the encoder E is trained with residuals of the image and
of the critic's features ("izi_f"). The answer is x_hat = G(E(x)), or the paper's own score of an image. Deviations:
plain convolutions with norms over one image instead of residual blocks; Adam for the encoder instead of RMSProp; the
EMA weights of G and D are kept.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.corruption.painting import RepairingFields
from pipeline.methods.base import Method, MethodConfig, Phase, levels_between, require_size, widths
from pipeline.nn.adversarial import Generator, Judge, critic_terms
from pipeline.nn.bottleneck import on_grid
from pipeline.nn.rng import Rng
from pipeline.types import Batch

BETAS = (0.0, 0.9)  # of Adam, arXiv:1704.00028, algorithm 1


class FAnoGanConfig(RepairingFields, MethodConfig):
    """Configuration of `f_anogan`."""

    name: Literal["f_anogan"] = "f_anogan"
    answer: Literal["reconstruction", "discrepancy"] = Field(
        "reconstruction", description="x_hat, or the paper's score of an image, which has no map"
    )
    widths: tuple[int, ...] = Field((32, 64, 128, 128), min_length=2, description="channels per level, last repeated")
    latent: int = Field(64, ge=1, description="length of the code z")
    penalty: float = Field(10.0, ge=0, description="lambda, weight of the gradient penalty")
    critic_steps: int = Field(5, ge=1, description="n_critic, critic steps per generator step")
    kappa: float = Field(1.0, ge=0, description="weight of the residual of the critic's features")
    gan_share: float = Field(0.7, gt=0, lt=1, description="share of the training before the encoder's turn")
    lr: float = Field(1e-4, gt=0, description="learning rate of generator and critic")
    encoder_lr: float = Field(2e-4, gt=0, description="learning rate of the encoder")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> Method:
        require_size(self.name, image_size, 2 ** len(self.widths), 2 ** (len(self.widths) + 1))
        answer = Restorer if self.answer == "reconstruction" else DiscrepancyScorer
        return answer(self, image_size, channels, spatial_dims)


class _FAnoGan(Method):
    """z -> x by the generator, x -> z by the encoder; the classes below give the answers."""

    config: FAnoGanConfig
    channels_last = True

    def __init__(self, config: FAnoGanConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        levels = levels_between(image_size, bottom=4, at_least=len(config.widths))
        sizes, grid = widths(config.widths, levels), image_size // 2**levels
        self.generator = Generator(spatial_dims, config.latent, [*reversed(sizes), channels], grid)
        self.critic = Judge(spatial_dims, [channels, *sizes], grid, bias=False)
        self.encoder = Judge(spatial_dims, [config.inputs(channels), *sizes], grid, outputs=config.latent)
        self.phases = (
            Phase("critic", ("critic",), config.lr, BETAS, repeats=config.critic_steps, until=config.gan_share),
            Phase("generator", ("generator",), config.lr, BETAS, until=config.gan_share),
            Phase("encoder", ("encoder",), lr=config.encoder_lr, after=config.gan_share),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return G(E(x)), [B, C, *spatial]."""
        return self.generator(self._code(x))

    def _code(self, x: Tensor) -> Tensor:
        z = self.encoder(self.config.seen(x))
        return z if z.ndim == 2 else z[:, None]

    def to_code(self, x: Tensor) -> Tensor:
        """Return E(x) on a grid of 1: [B, latent, 1, 1]."""
        return on_grid(self._code(x), self.spatial_dims)

    def from_code(self, z: Tensor) -> Tensor:
        """Return G(z)."""
        return self.generator(z.flatten(1))

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the critic's, the generator's or the encoder's loss and its terms."""
        if phase == "encoder":
            return self._encoder_terms(*self.config.pair(batch, rng))
        z = rng.normal(self.config.latent)
        if phase == "generator":
            judged = self.critic(self.generator(z)).mean()
            return {"total": -judged, "judged": judged}
        with torch.no_grad():
            x_tilde = self.generator(z)
        epsilon = rng.uniform(*[1] * (batch.images.ndim - 1))
        return critic_terms(self.critic, batch.images, x_tilde, epsilon, self.config.penalty)

    def _encoder_terms(self, x: Tensor, clean: Tensor) -> dict[str, Tensor]:
        image, features = (residual.mean() for residual in self._residuals(x, clean))
        return {"total": image + self.config.kappa * features, "image": image, "features": features}

    def _residuals(self, x: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean squared residual of the image and of the critic's features, each [B]."""
        x_hat = self(x)
        f, f_hat = self.critic.features(clean).float(), self.critic.features(x_hat).float()
        return (clean - x_hat).square().flatten(1).mean(dim=1), (f - f_hat).square().flatten(1).mean(dim=1)

    def validation(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the encoder's loss in its phase, nothing before: no term of a GAN falls steadily as it improves."""
        return self._encoder_terms(*self.config.pair(batch, rng)) if phase == "encoder" else {}


class Restorer(_FAnoGan):
    """Answer with the normal image whose code the encoder predicts."""

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return G(E(x)); no randomness."""
        with self.inference():
            return self(self.check(x)).to(x.dtype)


class DiscrepancyScorer(_FAnoGan):
    """Answer with the paper's score of an image."""

    def score(self, x: Tensor, rng: Rng) -> Tensor:
        """Return A(x) = A_R(x) + kappa A_D(x), float32 [B], higher = more anomalous; no randomness."""
        with self.inference():
            image, features = self._residuals(self.check(x), x)
            return (image + self.config.kappa * features).float()
