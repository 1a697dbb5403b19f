"""`alpha_gan`: an autoencoder with discriminators for both its images and its codes.

alpha-GAN: Rosca et al. 2017, arXiv:1706.04987, as used on chest radiographs by Nakao et al., Journal of Digital Imaging
2021. Encoder, generator, a discriminator of images and a discriminator of codes, with the losses of section 4 and
algorithm 1. With D = sigmoid(d), the generators' -log D + log(1 - D) is -d. Deviations: one step of each network per
turn (the paper takes two of encoder and generator); norms over one image; Adam's beta_1 is 0.5.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.corruption.painting import RepairingFields
from pipeline.methods.base import Method, MethodConfig, Phase, levels_between, require_size, widths
from pipeline.nn.adversarial import Generator, Judge, said_fake, said_real
from pipeline.nn.bottleneck import on_grid
from pipeline.nn.rng import Rng
from pipeline.types import Batch

BETAS = (0.5, 0.9)


class AlphaGanConfig(RepairingFields, MethodConfig):
    """Configuration of `alpha_gan`."""

    name: Literal["alpha_gan"] = "alpha_gan"
    widths: tuple[int, ...] = Field((32, 64, 128, 128), min_length=2, description="channels per level, last repeated")
    latent: int = Field(64, ge=1, description="length of the code z")
    code_hidden: int = Field(256, ge=1, description="width of the two hidden layers of the code discriminator")
    weight: float = Field(10.0, gt=0, description="lambda, weight of the absolute reconstruction error")
    lr: float = Field(2e-4, gt=0, description="learning rate of all four networks")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> AlphaGan:
        require_size(self.name, image_size, 2 ** len(self.widths), 2 ** (len(self.widths) + 1))
        return AlphaGan(self, image_size, channels, spatial_dims)


class AlphaGan(Method):
    """x -> z_hat -> x_hat, with z_hat trained to look like N(0, I), and x_hat and G(z) like normal images."""

    config: AlphaGanConfig
    channels_last = True

    def __init__(self, config: AlphaGanConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        levels = levels_between(image_size, bottom=4, at_least=len(config.widths))
        sizes, grid, hidden = widths(config.widths, levels), image_size // 2**levels, config.code_hidden
        self.encoder = Judge(spatial_dims, [config.inputs(channels), *sizes], grid, outputs=config.latent)
        self.generator = Generator(spatial_dims, config.latent, [*reversed(sizes), channels], grid)
        self.discriminator = Judge(spatial_dims, [channels, *sizes], grid)
        self.code_discriminator = nn.Sequential(
            nn.Linear(config.latent, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, hidden), nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1), nn.Flatten(0),
        )  # fmt: skip
        names = ("encoder", "generator", "discriminator", "code_discriminator")
        self.phases = tuple(Phase(name, (name,), lr=config.lr, betas=BETAS) for name in names)

    def encode(self, x: Tensor) -> Tensor:
        """Return z_hat, float32 [B, latent]."""
        z = self.encoder(self.config.seen(x))
        return z if z.ndim == 2 else z[:, None]

    def to_code(self, x: Tensor) -> Tensor:
        """Return z_hat on a grid of 1: [B, latent, 1, 1]."""
        return on_grid(self.encode(x), self.spatial_dims)

    def from_code(self, z: Tensor) -> Tensor:
        """Return G(z)."""
        return self.generator(z.flatten(1))

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the loss of the phase's own network and its terms (algorithm 1)."""
        (x, clean), z = self.config.pair(batch, rng), rng.normal(self.config.latent)
        match phase:
            case "encoder":
                return self._encoder_terms(x, clean)
            case "generator":
                return self._generator_terms(x, clean, z)
            case "discriminator":
                return self._discriminator_terms(x, clean, z)
            case _:
                return self._code_terms(x, z)

    def _encoder_terms(self, x: Tensor, clean: Tensor) -> dict[str, Tensor]:
        z_hat = self.encode(x)
        terms = {
            "reconstruction": _l1(clean, self.generator(z_hat)),
            "code": -self.code_discriminator(z_hat).float().mean(),
        }
        return {"total": self.config.weight * terms["reconstruction"] + terms["code"], **terms}

    def _generator_terms(self, x: Tensor, clean: Tensor, z: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            z_hat = self.encode(x)
        x_hat = self.generator(z_hat)
        terms = {
            "reconstruction": _l1(clean, x_hat),
            "reconstructed": -self.discriminator(x_hat).mean(),
            "generated": -self.discriminator(self.generator(z)).mean(),
        }
        total = self.config.weight * terms["reconstruction"] + terms["reconstructed"] + terms["generated"]
        return {"total": total, **terms}

    def _discriminator_terms(self, x: Tensor, clean: Tensor, z: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            x_hat, x_tilde = self.generator(self.encode(x)), self.generator(z)
        terms = {
            "real": said_real(self.discriminator(clean)),
            "reconstructed": said_fake(self.discriminator(x_hat)),
            "generated": said_fake(self.discriminator(x_tilde)),
        }
        return {"total": sum(terms.values(), torch.zeros((), device=x.device)), **terms}

    def _code_terms(self, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            z_hat = self.encode(x)
        terms = {
            "prior": said_real(self.code_discriminator(z).float()),
            "encoded": said_fake(self.code_discriminator(z_hat).float()),
        }
        return {"total": terms["prior"] + terms["encoded"], **terms}

    def validation(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the reconstruction error: the adversarial terms do not measure the quality of a network."""
        x, clean = self.config.pair(batch, rng)
        error = _l1(clean, self.generator(self.encode(x)))
        return {"total": error, "reconstruction": error}

    def sample(self, rng: Rng) -> Tensor:
        """Return new images [B, C, *spatial], one per row of `rng`: G(z), z from N(0, I)."""
        with self.inference():
            return self.generator(rng.normal(self.config.latent))

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return G(E(x)); no randomness."""
        with self.inference():
            return self.generator(self.encode(self.check(x))).to(x.dtype)


def _l1(x: Tensor, x_hat: Tensor) -> Tensor:
    return (x - x_hat).abs().mean()
