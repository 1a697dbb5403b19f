"""`ae`: a convolutional autoencoder with a narrow bottleneck.

Anything that does not pass the bottleneck is anomalous. The recipe is that of MedIAnomaly (Cai et al., Medical Image
Analysis 2025): 4x4 convolutions of stride 2 with batch norm and ReLU, a fully connected layer of 1024, a latent code of
16, and the mirror image as the decoder. With `perceptual_weight` it is that paper's AE-PL: score it with the perceptual
residual, since with squared error it falls below chance. Deviation: grids larger than 64 pixels get more levels, so
that the last grid stays 4 to 7 pixels.
"""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.corruption.painting import RepairingFields
from pipeline.methods.base import Method, MethodConfig, Phase, levels_between, require_size, widths
from pipeline.nn.bottleneck import SQUEEZE, doubling, halving, on_grid, spread, squeeze
from pipeline.nn.perceptual import Perceptual, PerceptualConfig
from pipeline.nn.rng import Rng
from pipeline.types import Batch


class AeConfig(RepairingFields, MethodConfig):
    """Configuration of `ae`."""

    name: Literal["ae"] = "ae"
    widths: tuple[int, ...] = Field((16, 32, 64, 64), min_length=2, description="channels per level, the last repeated")
    hidden: int = Field(1024, ge=1, description="width of the fully connected layer on both sides of the code")
    latent: int = Field(16, ge=1, description="length of the code; 4 to 32 for local lesions")
    perceptual_weight: float = Field(
        0.0, ge=0, description="weight of the perceptual term; 0 leaves out the term and its network"
    )
    perceptual: PerceptualConfig = Field(PerceptualConfig(), description="features of the perceptual term")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> Autoencoder:
        require_size(self.name, image_size, 2 ** len(self.widths), 2 ** (len(self.widths) + 1))
        return Autoencoder(self, image_size, channels, spatial_dims)


class Autoencoder(Method):
    """x -> code -> x_hat, trained on the mean squared error and, if weighted, a perceptual distance."""

    config: AeConfig
    channels_last = True

    def __init__(self, config: AeConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        levels = levels_between(image_size, bottom=4, at_least=len(config.widths))
        sizes = widths(config.widths, levels)
        bottom = (sizes[-1], *[image_size // 2**levels] * spatial_dims)
        self.encoder = halving(spatial_dims, [config.inputs(channels), *sizes])
        flat, hidden, latent = math.prod(bottom), config.hidden, config.latent
        self.code = nn.Sequential(*squeeze(flat, hidden, latent), *spread(latent, hidden, flat))
        self.expand = nn.Unflatten(1, bottom)
        self.decoder = doubling(spatial_dims, [*reversed(sizes), channels])
        self.perceptual = Perceptual(config.perceptual, spatial_dims) if config.perceptual_weight else None
        self.phases = (Phase("train", lr=config.lr),)

    def forward(self, x: Tensor) -> Tensor:
        """Return x_hat [B, C, *spatial]."""
        return self.decoder(self.expand(self.code(self.encoder(self.config.seen(x)).flatten(1))))

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the mean squared error over all pixels and, if weighted, the perceptual distance."""
        x, clean = self.config.pair(batch, rng)
        x_hat = self(x).float()
        error = F.mse_loss(x_hat, clean)
        if self.perceptual is None:
            return {"total": error, "reconstruction": error}
        distance = self.perceptual(clean, x_hat).mean()
        total = error + self.config.perceptual_weight * distance
        return {"total": total, "reconstruction": error, "perceptual": distance}

    def to_code(self, x: Tensor) -> Tensor:
        """Return the code on a grid of 1: [B, latent, 1, 1]."""
        return on_grid(self.code[:SQUEEZE](self.encoder(self.config.seen(x)).flatten(1)), self.spatial_dims)

    def from_code(self, z: Tensor) -> Tensor:
        """Return images of codes."""
        return self.decoder(self.expand(self.code[SQUEEZE:](z.flatten(1))))

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return x_hat; no randomness."""
        with self.inference():
            return self(self.check(x)).to(x.dtype)
