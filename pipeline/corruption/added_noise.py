"""Noise as a corruption: added within the body, to be removed again."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from pipeline.config import Config
from pipeline.diffusion.noise import NoiseKind, draw_noise
from pipeline.nn.rng import Rng


class AddedNoiseConfig(Config):
    """Noise that a method learns to remove. The default is the strength of Kascenas et al. (MIDL 2022): 0.2 on the
    knots, for a range of 0 to 1, is 0.4 on [-1, 1], of which interpolation leaves 2/3.
    """

    kind: NoiseKind = Field("coarse", description="coarse, simplex or gaussian")
    std: float = Field(0.25, gt=0, description="standard deviation of the noise, in units of the image [-1, 1]")
    grid: int = Field(8, ge=2, description="cells of the coarse noise along one edge; 8 pixels per cell")
    vary_strength: bool = Field(False, description="scale each image's noise by a uniform factor of 0 to 1")


def add_noise(images: Tensor, body: Tensor, config: AddedNoiseConfig, rng: Rng) -> Tensor:
    """Return images [B, C, *spatial] with noise added within their bodies, bool [B, 1, *spatial]."""
    noise = draw_noise(config.kind, rng, images.shape[1:], config.grid)
    if config.vary_strength:
        noise = noise * rng.uniform(*[1] * (images.ndim - 1))
    return images + config.std * noise * body
