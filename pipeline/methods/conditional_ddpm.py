"""`conditional_ddpm`: a diffusion model of the image given a degraded one: SR3 (Saharia et al., arXiv:2104.07636) and
Palette (arXiv:2111.05826).

Notation: x the image, y what is seen of it, m the mask of missing pixels; x_t = sqrt(gamma) x + sqrt(1 - gamma) eps.
The network sees x_t with y and m as further channels and receives the noise level instead of a time: gamma is drawn
uniformly between those of neighbouring times (SR3, section 2.4), so that steps may be chosen after the training. A draw
begins with noise and takes `steps` DDIM steps. One draw looks like an image; the mean of several is nearer to the true
one (YODA, arXiv:2505.02048). As a detector it restores a scan that was degraded first (`asked`), `draws` times.

Deviations: the network receives sqrt(1 - gamma) times T rather than sqrt(gamma), by the embedding of a time; with
`prediction: x0` it predicts the correction x - y; steps are those of DDIM (arXiv:2010.02502), not ancestral, unless
`eta` is 1.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.corruption.degrade_fields import RestoringFields, check_missing, see
from pipeline.diffusion.denoiser import Unet, UnetConfig
from pipeline.diffusion.noise import NoiseKind
from pipeline.diffusion.prediction import Prediction, target
from pipeline.diffusion.process import Process, ProcessConfig
from pipeline.diffusion.sampling import power
from pipeline.methods.base import Method, MethodConfig, Phase, require_size
from pipeline.nn.repair import mean_of_draws
from pipeline.nn.rng import Rng
from pipeline.types import Batch


class ConditionalDdpmConfig(RestoringFields, ProcessConfig, MethodConfig):
    """Configuration of `conditional_ddpm`."""

    name: Literal["conditional_ddpm"] = "conditional_ddpm"
    denoiser: UnetConfig = Field(UnetConfig(), description="the network")
    prediction: Prediction = Field("x0", description="output of the network: x0 (as a correction of y), epsilon or v")
    noise: NoiseKind = Field("gaussian", description="gaussian, simplex or coarse")
    start_times: tuple[int, ...] = Field((999,), min_length=1, max_length=1, description="time of pure noise: T - 1")
    steps: int = Field(8, ge=1, description="DDIM steps of a draw")
    eta: float = Field(0.0, ge=0, le=1, description="0 is DDIM, 1 the ancestral sampler, which needs many steps")
    draws: int = Field(4, ge=1, le=64, description="draws that a mean is taken of, as a detector and in tables")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam")

    def _build(self, image_size: int, channels: int, spatial_dims: int) -> ConditionalDdpm:
        require_size(self.name, image_size, self.denoiser.multiple, 4 * self.denoiser.multiple)
        self.check_ways(image_size, spatial_dims)
        return ConditionalDdpm(self, image_size, channels, spatial_dims)


class ConditionalDdpm(Method):
    """Noise and a degraded image in; an image that it could come from out."""

    config: ConditionalDdpmConfig
    channels_last = True

    def __init__(self, config: ConditionalDdpmConfig, image_size: int, channels: int, spatial_dims: int) -> None:
        super().__init__(config, image_size, channels, spatial_dims)
        self.network = Unet(config.denoiser, spatial_dims, 2 * channels + 1, None, channels)
        self.process = Process(config, self.image_shape, limit=1.0)
        self.phases = (Phase("train", lr=config.lr),)

    @property
    def passes(self) -> int:
        """Every step of every draw, twice if tiles of both colours are hidden in turn."""
        return self.config.draws * self.config.steps * self.config.times_asked

    def forward(self, x_t: Tensor, gamma: Tensor, seen: Tensor) -> Tensor:
        """Return the prediction [B, C, *spatial] from x_t at signal power gamma [B, 1, ...], and what is seen."""
        level = self.config.times * (1 - gamma).clamp_min(0).sqrt().flatten()
        output = self.network(torch.cat([x_t, seen.to(x_t)], dim=1), level).float()
        return seen[:, : self.channels].float() + output if self.config.prediction == "x0" else output

    def loss(self, batch: Batch, phase: str, rng: Rng) -> dict[str, Tensor]:
        """Return the mean squared error of the prediction at a random noise level (SR3, equation 6, with squares)."""
        lesson = self.config.study(batch, rng)
        gamma, eps = self.draw_level(rng.fork("level"), lesson.clean), self.process.noise(rng.fork("noise"))
        x_t = gamma.sqrt() * lesson.clean + (1 - gamma).sqrt() * eps
        lesson_target = target(self.config.prediction, lesson.clean, eps, gamma)
        error = F.mse_loss(self(x_t, gamma, lesson.seen), lesson_target)
        return {"total": error, self.config.prediction: error}

    def draw_level(self, rng: Rng, like: Tensor) -> Tensor:
        """Return a gamma per row, uniform between those of a random time and the one before it: [B, 1, ...]."""
        t, share = rng.integers(0, self.config.times), rng.uniform(*[1] * (like.ndim - 1))
        alpha_bar = self.process.alpha_bar.to(like.device)
        now, before = power(alpha_bar, t, like), power(alpha_bar, t - 1, like)
        return now + share * (before - now)

    def restore(self, worse: Tensor, rng: Rng, condition: Tensor | None = None, steps: int | None = None) -> Tensor:
        """Return one draw from p(image | worse), [B, C, *spatial]; randomness comes from the row's key.

        Args:
            worse: [B, C, *spatial].
            rng: one stream per row.
            condition: mask [B, 1, *spatial], 1 where pixels are missing; None if none are.
            steps: DDIM steps, 1 to T; None takes those of the configuration.

        Raises:
            ConfigError: steps out of range, or a condition that is not such a mask.
        """
        with self.inference():
            seen = see(self.check(worse), check_missing(self.config.name, worse, condition))
            alpha_bar = self.process.alpha_bar.to(worse.device)

            def predict(x_t: Tensor, t: Tensor) -> Tensor:
                return self(x_t, power(alpha_bar, t, x_t), seen)

            taken = self.config.steps if steps is None else steps
            return self.process.draw(predict, rng, taken, self.config.eta).to(worse.dtype)

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return the mean of `draws` times x degraded (`asked`) and restored."""
        self.check(x)
        draws = [
            self.config.repair_by(self.restore, x, rng.fork(f"draw {number}")) for number in range(self.config.draws)
        ]
        return mean_of_draws(draws)
