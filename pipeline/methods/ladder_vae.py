"""`ladder_vae`: a variational autoencoder that repairs, with a Gaussian code on every level of a U-Net.

A ladder of codes as in Sonderby et al., arXiv:1602.02282, but each level's posterior q(z_l | x) is read off the encoder
alone and its prior is N(0, I). It learns as a denoising VAE (Im et al., arXiv:1511.06406): painted lesions in, the
clean image out. The loss is a scaled negative ELBO: with a Laplace decoder of scale b, b x (-log p(x | z) + sum_l
KL(q(z_l | x~) || N(0, I))) per pixel is the absolute error plus b x KL, up to a constant. Narrow codes on the fine
levels and the KL keep lesions out; what the decoder needs for the detail of normal tissue fits through.

With a gate (`gated`) the decoder gives where and by how much to change the image, x_hat = x~ + g d, both from the codes
alone: nothing but the answer's base comes from the image itself. Without, it gives the image. x_hat is the mean of
`draws` draws of the codes; 0 takes their means.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.corruption.painting import PaintingFields
from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.nn.gaussian import kl_to_standard_normal
from pipeline.nn.ladder import LadderUNet
from pipeline.nn.repair import Repaired, RepairFields, mean_of_draws
from pipeline.nn.rng import Rng
from pipeline.nn.unet import UNetFields
from pipeline.types import Batch


class LadderVaeConfig(RepairFields, PaintingFields, UNetFields, MethodConfig):
    """Configuration of `ladder_vae`."""

    name: Literal["ladder_vae"] = "ladder_vae"
    code: tuple[int, int, int, int, int] = Field(
        (2, 4, 8, 16, 32), description="channels of the code on each level, finest first"
    )
    decoder_scale: float = Field(0.02, gt=0, description="scale b of the Laplace decoder: the weight of the KL term")
    warm_up: int = Field(0, ge=0, description="optimiser steps over which the weight of the KL term rises from 0")
    draws: int = Field(4, ge=0, le=64, description="draws of the codes that x_hat averages; 0 takes their means")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> LadderVae:
        require_size(self.name, image_size, self.multiple, 2 * self.multiple)
        return LadderVae(self, image_size, channels, spatial_dims)


class LadderVae(Method):
    """Image with lesions -> q(z_l | x) on five levels -> clean image."""

    config: LadderVaeConfig
    channels_last = True
    steps: Tensor

    def __init__(self, config: LadderVaeConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        encoded, outputs = [2 * width for width in config.code], config.outputs(channels)
        self.network = LadderUNet(spatial_dims, channels, outputs, config, encoded, config.code)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.phases = (Phase("train", lr=config.lr),)

    def encode(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return mean and log-variance of each level's code, finest first, each [B, code, *grid]."""
        parts = [level.chunk(2, dim=1) for level in self.network.encode(x)]
        return [(mu, log_variance.clamp(-10, 10)) for mu, log_variance in parts]

    def decode(self, x: Tensor, codes: list[Tensor]) -> Repaired:
        """Return the answer for images x that codes of all levels mean."""
        return self.config.repaired(x, self.network.decode(codes))

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the repair's error + b x KL; KL per level (kl_0 is the finest) in nats per pixel of the image."""
        lesson = self.config.lesson(batch, rng)
        posterior = self.encode(lesson.painted.images)
        repaired = self.decode(lesson.painted.images, drawn(posterior, rng.fork("codes")))
        terms = self.config.repair_terms(repaired, lesson.clean, lesson.painted.mask, lesson.body)
        pixels = lesson.clean[0].numel()
        kl = [kl_to_standard_normal(mu.flatten(1), s.flatten(1)).mean() / pixels for mu, s in posterior]
        weight = self.config.decoder_scale * self._warmth()
        total = terms["repair"] + weight * torch.stack(kl).sum()
        return {"total": total, **terms, **{f"kl_{level}": nats for level, nats in enumerate(kl)}}

    def _warmth(self) -> Tensor:
        """Return the share of the KL weight that applies now, in (0, 1]."""
        return ((self.steps + 1) / (self.config.warm_up + 1)).clamp_max(1.0)

    def after_step(self, phase: str) -> None:
        """Count the step, for the warm-up."""
        self.steps += 1

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return the mean x_hat of `draws` draws of the codes; randomness comes from the row's key."""
        with self.inference():
            posterior = self.encode(self.check(x))
            if not self.config.draws:
                return self.decode(x, [mu for mu, _ in posterior]).images.to(x.dtype)
            draws = [drawn(posterior, rng.fork(f"draw {number}")) for number in range(self.config.draws)]
            return mean_of_draws([self.decode(x, codes).images for codes in draws]).to(x.dtype)


def drawn(posterior: list[tuple[Tensor, Tensor]], rng: Rng) -> list[Tensor]:
    """Draw z = mu + sigma eps on each level."""
    return [
        mu + (0.5 * log_variance).exp() * rng.fork(level).normal(*mu.shape[1:])
        for level, (mu, log_variance) in enumerate(posterior)
    ]
