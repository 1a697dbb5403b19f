"""`conditioned_ddpm`: a diffusion model that repairs: given a painted image, it denoises towards the clean one.

Baugh et al., "Image-conditioned diffusion models for medical anomaly detection", UNSURE 2024: the network sees the
noisy clean image x_t and, as further channels, the painted image c (and its mirror image with `mirrored`). It learns
p(x_0 | c) where c has lesions and x_0 does not; a scan is repaired by sampling x_0 from noise with the scan as c.
Notation as in `ddpm`. The network predicts x_0 (`prediction` is fixed), with a gate (`gated`) as x_0 = c + g d.
x_hat is the mean over `draws` draws, each of `steps` DDIM steps from every one of `start_times`; from the last time,
nothing but noise enters, so that x_t cannot carry a lesion.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.corruption.painting import PaintingFields
from pipeline.diffusion.denoiser import Unet, UnetConfig
from pipeline.diffusion.noise import NoiseKind
from pipeline.diffusion.process import Process, ProcessConfig
from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.nn.repair import Repaired, RepairFields, mean_of_draws
from pipeline.nn.rng import Rng
from pipeline.types import Batch


class ConditionedDdpmConfig(RepairFields, PaintingFields, ProcessConfig, MethodConfig):
    """Configuration of `conditioned_ddpm`."""

    name: Literal["conditioned_ddpm"] = "conditioned_ddpm"
    denoiser: UnetConfig = Field(UnetConfig(), description="the network")
    mirrored: bool = Field(False, description="the network also sees the mirrored image (last axis)")
    prediction: Literal["x0"] = Field("x0", description="output of the network")
    noise: NoiseKind = Field("gaussian", description="gaussian, simplex or coarse")
    start_times: tuple[int, ...] = Field((999,), min_length=1, description="times t0 that a scan is noised to")
    steps: int = Field(2, ge=1, description="DDIM steps from each t0 to 0")
    draws: int = Field(2, ge=1, le=64, description="draws of the noise that x_hat averages")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> ConditionedDdpm:
        multiple = self.denoiser.multiple
        require_size(self.name, image_size, multiple, 4 * multiple)
        return ConditionedDdpm(self, image_size, channels, spatial_dims)


class ConditionedDdpm(Method):
    """Noise and an image with lesions in; clean image out."""

    config: ConditionedDdpmConfig
    channels_last = True

    def __init__(self, config: ConditionedDdpmConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        seen = channels * (3 if config.mirrored else 2)
        self.network = Unet(config.denoiser, spatial_dims, seen, None, config.outputs(channels))
        self.process = Process(config, self.image_shape, limit=1.0)
        self.phases = (Phase("train", lr=config.lr),)

    @property
    def passes(self) -> int:
        """Every step from every start time, for every draw."""
        return self.config.draws * len(self.config.start_times) * self.config.steps

    def forward(self, x_t: Tensor, t: Tensor, c: Tensor) -> Repaired:
        """Return the prediction of x_0 [B, C, *spatial] from x_t at times t [B] and the image c to repair."""
        seen = [x_t, c, c.flip(-1)] if self.config.mirrored else [x_t, c]
        return self.config.repaired(c, self.network(torch.cat(seen, dim=1), t))

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the error of the predicted x_0 at a uniform time, within the body, a mean over the images."""
        lesson = self.config.lesson(batch, rng)
        x_t, t, _ = self.process.lesson(lesson.clean, rng.fork("noise"))
        repaired = self(x_t, t, lesson.painted.images)
        terms = self.config.repair_terms(repaired, lesson.clean, lesson.target, lesson.body)
        return {"total": terms["repair"], **terms}

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return the mean of `draws` repairs of x; randomness comes from the row's key."""
        with self.inference():
            self.check(x)
            repairs = [self._repair(x, rng.fork(f"draw {number}")) for number in range(self.config.draws)]
            return mean_of_draws(repairs).to(x.dtype)

    def _repair(self, x: Tensor, rng: Rng) -> Tensor:
        copies = len(self.config.start_times)
        c = x.repeat(copies, *[1] * (x.ndim - 1))
        predict = self.process.eps_of(lambda x_t, t: self(x_t, t, c).images)
        return self.process.from_starts(predict, x, rng).mean(dim=0)
