"""Base of generative adversarial methods that are inverted by an encoder, and the fields that all of them share.

A generator G and a judge of its images (a discriminator or a critic) learn first, each method by its own equations.
Then, with both frozen, an encoder E learns the code of each image from the residuals of the image and of the judge's
features: "izi_f" of Schlegl et al., Medical Image Analysis 2019 (f-AnoGAN). So a GAN that samples also answers what an
image would look like if it were normal: G(E(x)), the nearest image that it can make.

Wasserstein GANs also share their turns and the generator's loss, -E D(G(z)) (arXiv:1701.07875, algorithm 1).
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.corruption.painting import RepairingFields
from pipeline.methods.base import Method, MethodConfig, Phase, levels_between, require_size, widths
from pipeline.nn.adversarial import ONE_IMAGE, FeatureJudge, Generator, Judge, Norm, resting
from pipeline.nn.augment import augment
from pipeline.nn.bottleneck import on_grid
from pipeline.nn.rng import Rng
from pipeline.nn.sampling_options import require_between
from pipeline.types import Batch

CRITIC_BETAS = (0.0, 0.9)  # of Adam, arXiv:1704.00028, algorithm 1
DISCRIMINATOR_BETAS = (0.5, 0.999)  # arXiv:1511.06434, section 4


class Networks(NamedTuple):
    """Networks of an inverted GAN, which need not be those of images.

    Attributes:
        generator: code [B, code_length] -> x.
        judge: x -> float32 [B].
        encoder: x -> code [B, code_length].
    """

    generator: nn.Module
    judge: FeatureJudge
    encoder: nn.Module


class InvertedGanConfig(RepairingFields, MethodConfig):
    """Fields of every GAN with an encoder."""

    generator_norm: ClassVar[Norm] = ONE_IMAGE
    judge_bias: ClassVar[bool] = True  # of its last layer; a critic needs none

    widths: tuple[int, ...] = Field((32, 64, 128, 128), min_length=2, description="channels per level, last repeated")
    latent: int = Field(64, ge=1, description="length of the noise z")
    kappa: float = Field(1.0, ge=0, description="weight of the residual of the judge's features, for the encoder")
    augmentation: float = Field(
        0.0, ge=0, le=1, description="probability of each change of what the judge sees (DiffAugment); 0 is the paper's"
    )
    gan_share: float = Field(0.7, gt=0, lt=1, description="share of the training before the encoder's turn")
    lr: float = Field(2e-4, gt=0, description="learning rate of generator and judge")
    encoder_lr: float = Field(2e-4, gt=0, description="learning rate of the encoder")

    @property
    def code_length(self) -> int:
        """Length of the generator's input."""
        return self.latent

    def networks(self, image_size: int, channels: int, spatial_dims: int) -> Networks:
        """Return the networks of images of this size.

        Raises:
            ConfigError: the size cannot be halved often enough.
        """
        require_size(self.name, image_size, 2 ** len(self.widths), 2 ** (len(self.widths) + 1))
        levels = levels_between(image_size, bottom=4, at_least=len(self.widths))
        sizes, grid, length = widths(self.widths, levels), image_size // 2**levels, self.code_length
        return Networks(
            Generator(spatial_dims, length, [*reversed(sizes), channels], grid, self.generator_norm),
            Judge(spatial_dims, [channels, *sizes], grid, bias=self.judge_bias),
            Judge(spatial_dims, [self.inputs(channels), *sizes], grid, outputs=length),
        )

    def encoder_phase(self) -> Phase:
        """Return the phase in which the encoder learns; those of the GAN end where it begins."""
        return Phase("encoder", ("encoder",), lr=self.encoder_lr, after=self.gan_share)


class InvertedGan(Method):
    """z -> x by the generator, x -> z by the encoder; a method adds the phases and the loss of its GAN."""

    config: InvertedGanConfig
    judge: FeatureJudge
    channels_last = True

    def __init__(
        self, config: InvertedGanConfig, image_size: int, channels: int, spatial_dims: int, networks: Networks
    ) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.generator, self.judge, self.encoder = networks

    def forward(self, x: Tensor) -> Tensor:
        """Return G(E(x)), [B, C, *spatial]."""
        return self.generator(self._code(x))

    def _code(self, x: Tensor) -> Tensor:
        z = self.encoder(self.config.seen(x))
        return z if z.ndim == 2 else z[:, None]

    def to_code(self, x: Tensor) -> Tensor:
        """Return E(x) on a grid of 1: [B, code_length, 1, 1]."""
        return on_grid(self._code(x), self.spatial_dims)

    def from_code(self, z: Tensor) -> Tensor:
        """Return G(z)."""
        return self.generator(z.flatten(1))

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the loss of the phase and its terms: the encoder's, or one of the GAN's."""
        if phase == "encoder":
            return self.encoder_terms(*self.config.pair(batch, rng))
        return self.gan_terms(batch.images, phase, rng)

    def gan_terms(self, x: Tensor, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the judge's or the generator's loss and its terms."""
        raise NotImplementedError

    def changed(self, x: Tensor, rng: Rng, name: str) -> Tensor:
        """Return what the judge sees of real or generated images in training (arXiv:2006.10738); gradients pass."""
        if not self.config.augmentation:
            return x
        return augment(x, torch.tensor(self.config.augmentation), rng.fork(f"augmentation, {name}"))

    def fake(self, z: Tensor) -> Tensor:
        """Return G(z) for the judge's turn, without gradient."""
        with torch.no_grad():
            return self.generator(z)

    def encoder_terms(self, x: Tensor, clean: Tensor) -> dict[str, Tensor]:
        """Return the encoder's loss, whose code of x has to give the clean image; the other networks rest."""
        with resting(self.generator, self.judge):
            image, features = (residual.mean() for residual in self.residuals(x, clean))
        return {"total": image + self.config.kappa * features, "image": image, "features": features}

    def residuals(self, x: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean squared residual of the image and of the judge's features, each [B]."""
        x_hat = self(x)
        f, f_hat = self.judge.features(clean).float(), self.judge.features(x_hat).float()
        return (clean - x_hat).square().flatten(1).mean(dim=1), (f - f_hat).square().flatten(1).mean(dim=1)

    def validation(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the encoder's loss in its phase, nothing before: no term of a GAN falls steadily as it improves."""
        return self.encoder_terms(*self.config.pair(batch, rng)) if phase == "encoder" else {}

    def sample(self, rng: Rng, bound: float | None = None) -> Tensor:
        """Return new images [B, C, *spatial], one per row of `rng`: G(z) of the averaged weights, z from N(0, I).

        Args:
            rng: one stream per row.
            bound: largest |z|, whose distribution is then N(0, 1) within it: images closer to the average and less
                diverse (the truncation trick, arXiv:1809.11096, section 3.1); None leaves it unbounded.

        Raises:
            ConfigError: the bound is not positive.
        """
        with self.inference():
            return self.generator(self.noise(rng, bound))

    def noise(self, rng: Rng, bound: float | None = None) -> Tensor:
        """Return z, float32 [B, latent]; a bound moves each number by its rank, so that the same key stays similar.

        Raises:
            ConfigError: the bound is not positive.
        """
        if bound is not None:
            require_between("bound", bound, 0, above=True)
        z = rng.normal(self.config.latent)
        if bound is None:
            return z
        outside = torch.special.ndtr(torch.tensor(-bound, dtype=torch.float64))
        return torch.special.ndtri(outside + (1 - 2 * outside) * torch.special.ndtr(z.double())).float()


class RegeneratingGan(InvertedGan):
    """An inverted GAN that answers with the image which it makes from the code of x."""

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return G(E(x)); no randomness."""
        with self.inference():
            return self(self.check(x)).to(x.dtype)


class CriticGanConfig(InvertedGanConfig):
    """Fields of every Wasserstein GAN with an encoder."""

    judge_bias: ClassVar[bool] = False  # only differences of its outputs matter

    critic_steps: int = Field(5, ge=1, description="n_critic, critic steps per generator step")
    lr: float = Field(1e-4, gt=0, description="learning rate of generator and critic")


class CriticGan(InvertedGan):
    """A Wasserstein GAN; a method adds the critic's loss."""

    config: CriticGanConfig

    def __init__(
        self, config: CriticGanConfig, image_size: int, channels: int, spatial_dims: int, networks: Networks
    ) -> None:
        super().__init__(config, image_size, channels, spatial_dims, networks)
        until, steps = config.gan_share, config.critic_steps
        self.phases = (
            Phase("critic", ("judge",), config.lr, CRITIC_BETAS, repeats=steps, until=until),
            Phase("generator", ("generator",), config.lr, CRITIC_BETAS, until=until),
            config.encoder_phase(),
        )

    def gan_terms(self, x: Tensor, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the critic's or the generator's loss and its terms."""
        z = self.noise(rng)
        if phase == "critic":
            return self.critic_terms(self.changed(x, rng, "real"), self.changed(self.fake(z), rng, "fake"), rng)
        judged = self.judge(self.changed(self.generator(z), rng, "fake")).mean()
        return {"total": -judged, "judged": judged}

    def critic_terms(self, x: Tensor, x_tilde: Tensor, rng: Rng) -> dict[str, Tensor]:
        """Return the critic's loss for images x and x_tilde = G(z), and its terms."""
        raise NotImplementedError
