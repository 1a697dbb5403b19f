"""Intensity jitter of a whole image: variation by scanners and patients that must not count as a lesion."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Config
from pipeline.corruption.random_fields import between, smooth_field
from pipeline.nn.rng import Rng


class IntensityConfig(Config):
    """Range of the intensity jitter; the defaults change nothing."""

    gamma: float = Field(1.0, ge=1, description="exponent on [0, 1], drawn between 1 / gamma and gamma")
    gain: float = Field(0.0, ge=0, lt=1, description="brightness factor on [0, 1], drawn within 1 +- gain")
    bias: float = Field(
        0.0, ge=0, lt=1, description="highest standard deviation of a smooth field added to the logarithm of brightness"
    )
    noise: float = Field(0.0, ge=0, description="highest standard deviation of white noise, in units of [-1, 1]")


def jitter(images: Tensor, body: Tensor, config: IntensityConfig, rng: Rng) -> Tensor:
    """Return jittered images [B, C, *spatial] in [-1, 1].

    All channels of an image are changed in the same way. Outside the body only gamma and gain act.
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
    if config.noise:
        values = values + between(rng, (0.0, config.noise), *one) * rng.normal(*images.shape[1:]) * body
    return values.clamp(-1, 1)
