"""Intensity jitter of a whole image: variation by scanners and patients that must not count as a lesion."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Config
from pipeline.corruption.block_compression import compress
from pipeline.corruption.random_fields import between, blur, smooth_field
from pipeline.nn.rng import Rng


class IntensityConfig(Config):
    """Range of the intensity jitter; the defaults change nothing."""

    gamma: float = Field(1.0, ge=1, description="exponent on [0, 1], drawn between 1 / gamma and gamma")
    gain: float = Field(0.0, ge=0, lt=1, description="brightness factor on [0, 1], drawn within 1 +- gain")
    bias: float = Field(
        0.0, ge=0, lt=1, description="highest standard deviation of a smooth field added to the logarithm of brightness"
    )
    blur: float = Field(
        0.0, ge=0, lt=0.1, description="highest standard deviation of a blur, as a fraction of the edge"
    )
    noise: float = Field(0.0, ge=0, description="highest standard deviation of white noise, in units of [-1, 1]")
    quality: int = Field(
        100, ge=1, le=100, description="lowest quality of a JPEG-like compression, drawn up to 100; 100 leaves it out"
    )


def jitter(images: Tensor, body: Tensor, config: IntensityConfig, rng: Rng) -> Tensor:
    """Return jittered images [B, C, *spatial] in [-1, 1].

    All channels of an image are changed in the same way. Outside the body bias and noise do not act. Blur, noise and
    compression come in this order, as in an image that is taken and then stored: a model that learns from images with
    all of them cannot tell classes apart by how noisy, sharp or compressed their files are.
    """
    with torch.autocast(images.device.type, enabled=False):
        return _jitter(images, body, config, rng.fork("jitter"))


def _jitter(images: Tensor, body: Tensor, config: IntensityConfig, rng: Rng) -> Tensor:
    one = [1] * (images.ndim - 1)
    signal = (images + 1).clamp(0, 2) / 2
    if config.gamma > 1:
        signal = signal ** (rng.uniform(*one, low=-1.0, high=1.0) * math.log(config.gamma)).exp()
    if config.gain:
        signal = signal * (1 + config.gain * rng.uniform(*one, low=-1.0, high=1.0))
    if config.bias:
        strength = between(rng, (0.0, config.bias), *one)
        field = smooth_field(rng, images.shape[2:], between(rng, (0.1, 0.3)))
        signal = signal * (strength * field * body).exp()
    values = signal * 2 - 1
    if config.blur:
        values = _blurred(values, between(rng, (0.0, config.blur)))
    if config.noise:
        values = values + between(rng, (0.0, config.noise), *one) * rng.normal(*images.shape[1:]) * body
    if config.quality < 100:
        values = compress(values.clamp(-1, 1), between(rng, (float(config.quality), 100.0)))
    return values.clamp(-1, 1)


def _blurred(values: Tensor, length: Tensor) -> Tensor:
    finest = length.clamp_min(0.2 / values.shape[-1])  # below a fifth of a pixel the weights are those of no blur
    return blur(values, finest) / blur(torch.ones_like(values), finest)
