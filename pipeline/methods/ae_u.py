"""`ae_u`: an autoencoder that predicts its own uncertainty for every pixel.

Mao et al., "Abnormality detection in chest X-ray images using uncertainty prediction autoencoders", MICCAI 2020. One
more output channel s = log sigma^2. Notation: x the image, x_hat the reconstruction. Loss (eq. 1, as written in
MedIAnomaly, Cai et al. 2025): exp(-s) (x - x_hat)^2 + s, the mean over the pixels: twice the negative log-likelihood of
N(x_hat, exp(s)), up to a constant. The anomaly map is its first term, the error relative to the expected error,
so that edges and vessels, which no code can place exactly, do not count. Network and recipe are those of `ae`.
Deviation: images of several channels share one s, and the squared error is their mean.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from pipeline.corruption.painting import RepairingFields
from pipeline.methods.base import Method, MethodConfig, Phase, levels_between, require_size, widths
from pipeline.nn.bottleneck import SQUEEZE, doubling, halving, on_grid, spread, squeeze
from pipeline.nn.rng import Rng
from pipeline.types import Batch


class AeUConfig(RepairingFields, MethodConfig):
    """Configuration of `ae_u`."""

    name: Literal["ae_u"] = "ae_u"
    widths: tuple[int, ...] = Field((16, 32, 64, 64), min_length=2, description="channels per level, the last repeated")
    hidden: int = Field(1024, ge=1, description="width of the fully connected layer on both sides of the code")
    latent: int = Field(16, ge=1, description="length of the code; 4 to 32 for local lesions")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> UncertaintyAutoencoder:
        require_size(self.name, image_size, 2 ** len(self.widths), 2 ** (len(self.widths) + 1))
        return UncertaintyAutoencoder(self, image_size, channels, spatial_dims)


class UncertaintyAutoencoder(Method):
    """x -> code -> (x_hat, s)."""

    config: AeUConfig
    channels_last = True

    def __init__(self, config: AeUConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        levels = levels_between(image_size, bottom=4, at_least=len(config.widths))
        sizes = widths(config.widths, levels)
        bottom = (sizes[-1], *[image_size // 2**levels] * spatial_dims)
        flat, hidden, latent = math.prod(bottom), config.hidden, config.latent
        self.encoder = halving(spatial_dims, [config.inputs(channels), *sizes])
        self.code = nn.Sequential(*squeeze(flat, hidden, latent), *spread(latent, hidden, flat))
        self.expand = nn.Unflatten(1, bottom)
        self.decoder = doubling(spatial_dims, [*reversed(sizes), channels + 1])
        self.phases = (Phase("train", lr=config.lr),)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return x_hat [B, C, *spatial] and s = log sigma^2 [B, 1, *spatial]."""
        return self._decoded(self.code(self.encoder(self.config.seen(x)).flatten(1)))

    def _decoded(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        out = self.decoder(self.expand(flat)).float()
        return out[:, :-1], out[:, -1:]

    def to_code(self, x: Tensor) -> Tensor:
        """Return the code on a grid of 1: [B, latent, 1, 1]."""
        return on_grid(self.code[:SQUEEZE](self.encoder(self.config.seen(x)).flatten(1)), self.spatial_dims)

    def from_code(self, z: Tensor) -> Tensor:
        """Return x_hat."""
        return self._decoded(self.code[SQUEEZE:](z.flatten(1)))[0]

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return eq. 1, its two terms, and the plain mean squared error for comparison (not differentiated)."""
        x, clean = self.config.pair(batch, rng)
        x_hat, s = self(x)
        error = squared_error(clean, x_hat)
        weighted, uncertainty = (error * (-s).exp()).mean(), s.mean()
        return {
            "total": weighted + uncertainty,
            "reconstruction": weighted,
            "uncertainty": uncertainty,
            "squared_error": error.detach().mean(),
        }

    def anomaly_map(self, x: Tensor, rng: Rng) -> Tensor:
        """Return exp(-s) (x - x_hat)^2, [B, 1, *spatial], in units of the expected squared error; no randomness."""
        with self.inference():
            x_hat, s = self(self.check(x))
            return squared_error(x.float(), x_hat) * (-s).exp()


def squared_error(x: Tensor, x_hat: Tensor) -> Tensor:
    """Return the squared error of each pixel, the mean over the channels: [B, 1, *spatial]."""
    return (x - x_hat).square().mean(dim=1, keepdim=True)
