"""`ladder_vae`: a variational autoencoder that repairs, with a Gaussian code on every level of a U-Net.

A ladder of codes as in Sonderby et al., arXiv:1602.02282, but each level's posterior q(z_l | x) is read off the encoder
alone and its prior is N(0, I). It learns as a denoising VAE (Im et al., arXiv:1511.06406): painted lesions in, the
clean image out. The loss is a scaled negative ELBO: with a Laplace decoder of scale b, b x (-log p(x | z) + sum_l
KL(q(z_l | x~) || N(0, I))) per pixel is the absolute error plus b x KL, up to a constant. Narrow codes on the fine
levels and the KL keep lesions out; what the decoder needs for the detail of normal tissue fits through.

With a gate (`gated`) the decoder gives where and by how much to change the image, x_hat = x~ + g d, both from the codes
alone: nothing but the answer's base comes from the image itself. Without, it gives the image. x_hat is the mean of
`draws` draws of the codes; 0 takes their means.

With `variance` a further output s is the logarithm of the squared error that the decoder expects at each pixel
(sigma-VAE, Rybkin et al., arXiv:2006.13202; AE-U, Mao et al., MICCAI 2020), and b/2 (exp(-s) (x - x_hat)^2 + s) takes
the place of the absolute error. Then the method gives its own map, |x - x_hat| exp(-s / 2). Under painted lesions the
decoder cannot know what was there, and would excuse every lesion by a large s; `variance: healthy` lets s learn from
the unpainted pixels alone, `everywhere` from all.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from pipeline.corruption.painting import Lesson, PaintingFields
from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.nn.gaussian import kl_to_standard_normal
from pipeline.nn.ladder import LadderUNet
from pipeline.nn.masked import within_body
from pipeline.nn.repair import Repaired, RepairFields, mean_of_draws
from pipeline.nn.rng import Rng
from pipeline.nn.unet import UNetFields
from pipeline.types import Batch

LOG_VARIANCE = (-12.0, 4.0)  # limits of s: an error of 0.0025 to 7.4 in units of [-1, 1]


class LadderVaeConfig(RepairFields, PaintingFields, UNetFields, MethodConfig):
    """Configuration of `ladder_vae`."""

    name: Literal["ladder_vae"] = "ladder_vae"
    code: tuple[int, int, int, int, int] = Field(
        (2, 4, 8, 16, 32), description="channels of the code on each level, finest first"
    )
    decoder_scale: float = Field(0.02, gt=0, description="scale b of the Laplace decoder: the weight of the KL term")
    warm_up: int = Field(0, ge=0, description="optimiser steps over which the weight of the KL term rises from 0")
    variance: Literal["none", "healthy", "everywhere"] = Field(
        "none", description="expected error of each pixel, by which the map is divided, and the pixels it learns from"
    )
    draws: int = Field(4, ge=0, le=64, description="draws of the codes that x_hat averages; 0 takes their means")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> LadderVae | StandardisedLadder:
        require_size(self.name, image_size, self.multiple, 2 * self.multiple)
        model = LadderVae(self, image_size, channels, spatial_dims)
        return model if self.variance == "none" else StandardisedLadder(model)


class LadderVae(Method):
    """Image with lesions -> q(z_l | x) on five levels -> clean image."""

    config: LadderVaeConfig
    channels_last = True
    steps: Tensor

    def __init__(self, config: LadderVaeConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.expects = config.variance != "none"
        encoded, outputs = [2 * width for width in config.code], config.outputs(channels) + self.expects
        self.network = LadderUNet(spatial_dims, channels, outputs, config, encoded, config.code)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.phases = (Phase("train", lr=config.lr),)

    def encode(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return mean and log-variance of each level's code, finest first, each [B, code, *grid]."""
        parts = [level.chunk(2, dim=1) for level in self.network.encode(x)]
        return [(mu, log_variance.clamp(-10, 10)) for mu, log_variance in parts]

    def decode(self, x: Tensor, codes: list[Tensor]) -> Repaired:
        """Return the answer for images x that codes of all levels mean."""
        output = self.network.decode(codes)
        if not self.expects:
            return self.config.repaired(x, output)
        log_variance = output[:, -1:].float().clamp(*LOG_VARIANCE)
        return self.config.repaired(x, output[:, :-1])._replace(log_variance=log_variance)

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the repair's error + b x KL; KL per level (kl_0 is the finest) in nats per pixel of the image."""
        lesson = self.config.lesson(batch, rng)
        posterior = self.encode(lesson.painted.images)
        repaired = self.decode(lesson.painted.images, drawn(posterior, rng.fork("codes")))
        terms = self.config.repair_terms(repaired, lesson.clean, lesson.target, lesson.body)
        if repaired.log_variance is not None:
            terms |= self._likelihood(repaired.images, repaired.log_variance, lesson)
            terms["repair"] = terms["repair"] - terms["absolute"] + terms["likelihood"]
        pixels = lesson.clean[0].numel()
        kl = [kl_to_standard_normal(mu.flatten(1), s.flatten(1)).mean() / pixels for mu, s in posterior]
        weight = self.config.decoder_scale * self._warmth()
        total = terms["repair"] + weight * torch.stack(kl).sum()
        return {"total": total, **terms, **{f"kl_{level}": nats for level, nats in enumerate(kl)}}

    def _likelihood(self, x_hat: Tensor, s: Tensor, lesson: Lesson) -> dict[str, Tensor]:
        """Return b/2 (exp(-s) (x - x_hat)^2 + s), within the body, a mean over the images."""
        if self.config.variance == "healthy":
            s = torch.where(lesson.painted.mask, s.detach(), s)
        error = (x_hat - lesson.clean).square().mean(dim=1, keepdim=True)
        return {"likelihood": 0.5 * self.config.decoder_scale * within_body(error * (-s).exp() + s, lesson.body)}

    def _warmth(self) -> Tensor:
        """Return the share of the KL weight that applies now, in (0, 1]."""
        return ((self.steps + 1) / (self.config.warm_up + 1)).clamp_max(1.0)

    def after_step(self, phase: str) -> None:
        """Count the step, for the warm-up."""
        self.steps += 1

    @property
    def passes(self) -> int:
        """Of the decoder: one for every draw."""
        return max(self.config.draws, 1)

    def answers(self, x: Tensor, rng: Rng) -> list[Repaired]:
        """Return the answer of every draw of the codes, or that of their means; randomness comes from the row's key."""
        posterior = self.encode(self.check(x))
        if not self.config.draws:
            return [self.decode(x, [mu for mu, _ in posterior])]
        draws = [drawn(posterior, rng.fork(f"draw {number}")) for number in range(self.config.draws)]
        return [self.decode(x, codes) for codes in draws]

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return the mean x_hat of `draws` draws of the codes; randomness comes from the row's key."""
        with self.inference():
            return mean_of_draws([answer.images for answer in self.answers(x, rng)]).to(x.dtype)


class StandardisedLadder(Method):
    """Map the error of a ladder VAE in units of what it expects at each pixel."""

    config: LadderVaeConfig
    channels_last = True

    def __init__(self, model: LadderVae) -> None:
        super().__init__(model.config, model.image_size, model.channels, model.spatial_dims)
        self.model, self.phases = model, model.phases

    @property
    def passes(self) -> int:
        """Those of the ladder."""
        return self.model.passes

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the ladder's terms."""
        return self.model.loss(batch, phase, rng)

    def after_step(self, phase: str) -> None:
        """Run the ladder's own update."""
        self.model.after_step(phase)

    def anomaly_map(self, x: Tensor, rng: Rng) -> Tensor:
        """Return |x - x_hat| exp(-s / 2), means of the draws, [B, 1, *spatial]; randomness comes from the row's key."""
        with self.inference():
            answers = self.model.answers(self.check(x), rng)
            x_hat = mean_of_draws([answer.images for answer in answers])
            s = mean_of_draws([cast(Tensor, answer.log_variance) for answer in answers])
            return (x.float() - x_hat).abs().mean(dim=1, keepdim=True) * (-0.5 * s).exp()


def drawn(posterior: list[tuple[Tensor, Tensor]], rng: Rng) -> list[Tensor]:
    """Draw z = mu + sigma eps on each level."""
    return [
        mu + (0.5 * log_variance).exp() * rng.fork(level).normal(*mu.shape[1:])
        for level, (mu, log_variance) in enumerate(posterior)
    ]
